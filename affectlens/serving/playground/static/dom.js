// Small helpers for building elements; nothing here keeps state.

/** An element: h("p", {class: "note", onclick: f, "aria-label": "x"}, "text", child, …). */
export function h(tag, props = {}, ...children) {
  const made = document.createElement(tag);
  setProps(made, props);
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

/** The same for SVG. */
export function svg(tag, props = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  setProps(made, props);
  made.append(...children.flat());
  return made;
}

function setProps(made, props) {
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "vars") for (const [key, own] of Object.entries(value)) made.style.setProperty(key, own);
    else if (name in made && !(made instanceof SVGElement) && name !== "list") made[name === "class" ? "className" : name] = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
}

let counter = 0;

/** A name for an element that labels or describes another. */
export function freshId(prefix) {
  counter += 1;
  return `al-${prefix}-${counter}`;
}

/** Call once things have been quiet for a while. */
export function debounced(wait, call) {
  let timer = null;
  return (...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => call(...args), wait);
  };
}

/** A number as people read it: two digits behind the point at most, a real minus. */
export function number(value, digits = 2) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const text = value.toFixed(digits).replace(/\.?0+$/, "");
  return (text === "-0" || text === "" ? "0" : text).replace("-", "\u2212");
}

/** A share as per cent. */
export function percent(value) {
  if (value === null || value === undefined) return "–";
  const share = 100 * value;
  return share > 0 && share < 0.1 ? "<0.1 %" : `${share.toFixed(share < 10 ? 1 : 0)} %`;
}

/** Offer a text as a file. */
export function download(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = h("a", { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
