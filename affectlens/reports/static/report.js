(() => {
  "use strict";
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const darkOf = read("dark-colours");
  const root = document.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const plots = [...document.querySelectorAll(".plot")];
  const isDark = () =>
    root.dataset.theme ? root.dataset.theme === "dark" : system.matches;

  const recolour = (value) => {
    if (typeof value === "string") return darkOf[value] ?? value;
    if (Array.isArray(value)) return value.map(recolour);
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, recolour(v)]));
    }
    return value;
  };

  // Small multiples and phones have little room: smaller letters, fewer ticks.
  const fit = (layout, width) => {
    if (width > 420) return layout;
    const small = width < 240 ? 10 : 11;
    for (const [key, axis] of Object.entries(layout)) {
      if (!/^[xy]axis\d*$/.test(key)) continue;
      axis.tickfont = { ...axis.tickfont, size: small };
      if (axis.title) axis.title = { ...axis.title, font: { ...axis.title.font, size: small } };
    }
    layout.margin = { ...layout.margin, l: 4, r: 8 };
    if (layout.legend) {
      layout.legend.font = { ...layout.legend.font, size: 11 };
    }
    return layout;
  };

  const config = {
    displaylogo: false,
    scrollZoom: false,
    doubleClick: false,
    modeBarButtons: [["toImage"]],
  };
  const widths = new Map();
  const draw = (element) => {
    let figure = read(`${element.id}-data`);
    if (isDark()) figure = recolour(figure);
    const layout = fit(figure.layout, element.clientWidth);
    layout.width = element.clientWidth;
    widths.set(element, element.clientWidth);
    return Plotly.react(element, figure.data, layout, config);
  };
  // One plot per task, so that the page scrolls while the rest is drawn.
  const drawAll = (queue) => {
    const element = queue.shift();
    if (!element) {
      root.dataset.drawn = String(plots.length);
      return;
    }
    draw(element);
    setTimeout(() => drawAll(queue), 0);
  };
  drawAll([...plots]);

  const button = document.querySelector(".theme");
  const themes = ["", "light", "dark"];
  const names = { "": "Theme: system", light: "Theme: light", dark: "Theme: dark" };
  button.addEventListener("click", () => {
    const next = themes[(themes.indexOf(root.dataset.theme ?? "") + 1) % themes.length];
    if (next) root.dataset.theme = next;
    else delete root.dataset.theme;
    button.textContent = names[next];
    drawAll([...plots]);
  });
  system.addEventListener("change", () => drawAll([...plots]));
  // Follow the width of the card, whatever changed it.
  let waiting = 0;
  const observer = new ResizeObserver(() => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      drawAll(plots.filter((e) => widths.has(e) && widths.get(e) !== e.clientWidth));
    }, 80);
  });
  plots.forEach((element) => observer.observe(element));

  // The table of contents follows the reader.
  const links = new Map(
    [...document.querySelectorAll(".toc a")].map((a) => [a.hash.slice(1), a]),
  );
  const mark = () => {
    let current = null;
    for (const id of links.keys()) {
      const top = document.getElementById(id).getBoundingClientRect().top;
      if (current === null || top < 140) current = id;
    }
    for (const [id, link] of links) {
      if (id === current) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  };
  addEventListener("scroll", mark, { passive: true });
  mark();

  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      head.querySelector("button")?.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") === "descending";
        heads.forEach((h) => h.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const key = (row) => {
          const cell = row.cells[column];
          const number = Number.parseFloat(cell.dataset.value);
          return Number.isNaN(number) ? cell.textContent : number;
        };
        const rows = [...table.tBodies[0].rows].sort((a, b) => {
          const [x, y] = [key(a), key(b)];
          const order = typeof x === typeof y ? (x < y ? -1 : x > y ? 1 : 0) : typeof x === "number" ? 1 : -1;
          return up ? order : -order;
        });
        table.tBodies[0].append(...rows);
      });
    });
  }
})();
