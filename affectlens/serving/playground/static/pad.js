// A point on the plane of valence and arousal, moved by hand or by keys; the mixture follows.

import { h, number, svg } from "./dom.js";
import { mixtureFor } from "./mixture.js";
import { styleOf } from "./tokens.js";

const SIZE = 220;
const STEP = 0.05;

/** The pad; `changed(weights)` is told each mixture as it is made. */
export class Pad {
  constructor(plane, changed) {
    this.plane = plane;
    this.changed = changed;
    this.point = [0, 0];
    this.touched = false;
    this.strength = 1;
    this.reachedMark = svg("circle", { r: 4, class: "al-pad-reached" });
    this.handle = h("div", {
      class: "al-pad-handle",
      role: "slider",
      tabIndex: 0,
      "aria-label": "Valence and arousal",
      "aria-valuemin": -1,
      "aria-valuemax": 1,
      onkeydown: (event) => this.key(event),
    });
    this.area = h(
      "div",
      { class: "al-pad", onpointerdown: (event) => this.grab(event) },
      this.drawing(),
      this.handle,
    );
    this.told = h("p", { class: "al-quiet al-pad-told" });
    this.box = h(
      "fieldset",
      { class: "al-field" },
      h("legend", {}, "Valence and arousal"),
      this.area,
      h("label", { class: "al-inline" }, "how strong ", this.strengthInput()),
      this.told,
    );
    this.place(0, 0, false);
  }

  drawing() {
    const names = Object.entries(this.plane.points).flatMap(([label, [valence, arousal]], i) => {
      const [x, y] = [across(valence), down(arousal)];
      const anchor = x > SIZE - 40 ? "end" : x < 40 ? "start" : "middle";
      return [
        svg("circle", { cx: x, cy: y, r: 4, class: `al-pad-dot ${styleOf(label, i)}` }),
        svg("text", { x, y: y - 7, "text-anchor": anchor }, label),
      ];
    });
    return svg(
      "svg",
      { viewBox: `0 0 ${SIZE} ${SIZE}`, "aria-hidden": "true" },
      svg("path", { d: `M0 ${SIZE / 2}H${SIZE}M${SIZE / 2} 0V${SIZE}`, class: "al-pad-axes" }),
      svg("text", { x: SIZE - 4, y: SIZE / 2 + 13, "text-anchor": "end", class: "al-pad-axis" }, "pleasant"),
      svg("text", { x: 4, y: SIZE / 2 + 13, class: "al-pad-axis" }, "unpleasant"),
      svg("text", { x: SIZE / 2 + 5, y: 12, class: "al-pad-axis" }, "aroused"),
      svg("text", { x: SIZE / 2 + 5, y: SIZE - 5, class: "al-pad-axis" }, "calm"),
      ...names,
      this.reachedMark,
    );
  }

  strengthInput() {
    return h("input", {
      type: "range",
      min: 0,
      max: 2,
      step: 0.05,
      value: 1,
      "aria-label": "Strength of the mixture",
      oninput: (event) => {
        this.strength = Number(event.target.value);
        this.place(...this.point, true);
      },
    });
  }

  grab(event) {
    event.preventDefault();
    this.area.setPointerCapture(event.pointerId);
    const move = (moved) => {
      const box = this.area.getBoundingClientRect();
      const x = ((moved.clientX - box.left) / box.width) * 2 - 1;
      const y = 1 - ((moved.clientY - box.top) / box.height) * 2;
      this.place(x, y, true);
    };
    const over = () => this.area.removeEventListener("pointermove", move);
    move(event);
    this.handle.focus();
    this.area.addEventListener("pointermove", move);
    this.area.addEventListener("pointerup", over, { once: true });
    this.area.addEventListener("pointercancel", over, { once: true });
  }

  key(event) {
    const step = (event.shiftKey ? 4 : 1) * STEP;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (event.key === "Home" || event.key === "Escape") this.place(0, 0, true);
    else if (event.key in moves) this.place(this.point[0] + moves[event.key][0], this.point[1] + moves[event.key][1], true);
    else return;
    event.preventDefault();
  }

  /** Put the point somewhere; tell the mixture if a person did. */
  place(valence, arousal, byHand) {
    this.touched ||= byHand;
    const { points, unplaced } = this.plane;
    const bound = (x) => Math.round(Math.max(-1, Math.min(1, x)) * 100) / 100;
    this.point = [bound(valence), bound(arousal)];
    const shares = mixtureFor(points, this.point);
    const labels = Object.keys(points);
    const reached = [0, 1].map((axis) => labels.reduce((sum, label) => sum + (shares[label] ?? 0) * points[label][axis], 0));
    this.handle.style.left = `${(across(this.point[0]) / SIZE) * 100}%`;
    this.handle.style.top = `${(down(this.point[1]) / SIZE) * 100}%`;
    this.reachedMark.setAttribute("cx", across(reached[0]));
    this.reachedMark.setAttribute("cy", down(reached[1]));
    const far = Math.hypot(reached[0] - this.point[0], reached[1] - this.point[1]) > 0.1;
    this.reachedMark.classList.toggle("al-away", far);
    const weights = Object.fromEntries(labels.map((label) => [label, Math.round((shares[label] ?? 0) * this.strength * 100) / 100]));
    const said = Object.entries(weights).filter(([, w]) => w !== 0).map(([label, w]) => `${label} ${number(w)}`);
    const where = `valence ${number(this.point[0])}, arousal ${number(this.point[1])}`;
    const mixture = said.join(", ") || "nothing is steered";
    this.handle.setAttribute("aria-valuenow", this.point[0]);
    this.handle.setAttribute("aria-valuetext", this.touched ? `${where}: ${mixture}` : where);
    const missing = unplaced.length ? ` Not on the plane: ${unplaced.join(", ")}.` : "";
    this.told.textContent = !this.touched
      ? `Drag the point, or move it by the arrow keys; the sliders follow.${missing}`
      : `${where}: ${mixture}.${far ? " No mixture lies there; this one comes nearest." : ""}${missing}`;
    if (byHand) this.changed(weights);
  }
}

function across(valence) {
  return ((valence + 1) / 2) * SIZE;
}

function down(arousal) {
  return ((1 - arousal) / 2) * SIZE;
}
