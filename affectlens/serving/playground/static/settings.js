// What a person has set, as plain data; its spec as text; and the same in a link. No elements here.

export const MOST_COLUMNS = 6;

/** A sentence for people. */
export class Sentence extends Error {}

/** Settings of one steered column. */
export function newColumn(changes = {}) {
  return { weights: {}, mode: null, positions: null, operator: "add", gate: null, ...changes };
}

/** Settings of the page for a server that has told about itself. */
export function newSettings(about) {
  const pack = about.packs[0];
  const first = pack.emotions.includes("anger") ? "anger" : pack.emotions[0];
  return {
    pack: pack.name,
    prompt: "My train was cancelled, and I will miss my sister's wedding.",
    system: "",
    tokens: 60,
    temperature: 0,
    seed: 0,
    columns: [newColumn({ weights: { [first]: 1 } })],
  };
}

/** The spec of a column, as servers and the command line read it. */
export function specText(column) {
  const weights = Object.entries(column.weights).filter(([, value]) => value !== 0);
  if (!weights.length) return "none";
  const parts = [weights.map(([name, value]) => `${name}=${plain(value)}`).sort().join(",")];
  if (column.mode) parts.push(`mode=${column.mode}`);
  if (column.positions) parts.push(`positions=${column.positions}`);
  if (column.operator !== "add") parts.push(`operator=${column.operator}`);
  if (column.gate) parts.push(`gate=${gateText(column.gate)}`);
  return parts.join(";");
}

/** "sadness>0.4". */
export function gateText(gate) {
  return `${gate.label}${gate.above ? ">" : "<"}${plain(gate.threshold)}`;
}

function plain(value) {
  return String(Number(value.toFixed(4)));
}

/** A column of a spec, held against what a pack can do. */
export function readSpec(text, pack, about) {
  const column = newColumn();
  if (text === "none" || text === "") return column;
  const [first, ...options] = text.split(";");
  for (const part of first.split(",")) {
    const [name, value, ...more] = part.split("=");
    const strength = value === undefined || value.trim() === "" ? NaN : Number(value);
    if (more.length || !Number.isFinite(strength))
      throw new Sentence(`“${part}” is no strength; write for example anger=0.8.`);
    known("emotion", name, pack.emotions);
    const most = about.max_strength;
    if (Math.abs(strength) > most)
      throw new Sentence(`The strength of ${name} must lie between −${most} and ${most}, not be ${value}.`);
    if (name in column.weights) throw new Sentence(`${name} is named twice; keep one.`);
    column.weights[name] = strength;
  }
  for (const part of options) {
    const cut = part.indexOf("=");
    const [name, value] = [part.slice(0, cut), part.slice(cut + 1)];
    if (name === "gate") column.gate = readGate(value, pack);
    else if (name in about.options || name === "mode") {
      known(name, value, name === "mode" ? pack.modes : about.options[name].map((one) => one.name));
      column[name] = value;
    } else throw new Sentence(`The page has no setting “${name || part}”; it has mode, positions, operator and gate.`);
  }
  return column;
}

function readGate(text, pack) {
  const found = /^([^<>]+)([<>])(\d*\.?\d+)$/.exec(text);
  const threshold = found ? Number(found[3]) : NaN;
  if (!(threshold > 0 && threshold < 1))
    throw new Sentence(`“${text}” is no condition; write for example sadness>0.4.`);
  known("condition", found[1], pack.gates);
  return { label: found[1], above: found[2] === ">", threshold };
}

function known(kind, name, names) {
  if (!names.includes(name))
    throw new Sentence(`Unknown ${kind} “${name}”; there are: ${names.join(", ") || "none"}.`);
}

/** The part of a link behind #. */
export function toHash(settings) {
  const found = new URLSearchParams();
  for (const name of ["pack", "prompt", "system", "tokens", "temperature", "seed"])
    if (settings[name] !== "") found.append(name, settings[name]);
  for (const column of settings.columns) found.append("steer", specText(column));
  return `#${found}`;
}

/** Settings of such a link; nonsense is refused in a sentence. */
export function fromHash(hash, about) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const settings = newSettings(about);
  const specs = [];
  const seen = new Set();
  for (const [name, value] of given) {
    if (name !== "steer" && seen.has(name)) throw new Sentence(`The link gives ${name} twice.`);
    seen.add(name);
    if (name === "steer") specs.push(value);
    else if (name === "prompt" || name === "system") settings[name] = limited(name, value);
    else if (name === "pack") settings.pack = value;
    else if (name in RANGES) settings[name] = inRange(name, value, about);
    else throw new Sentence(`The link has “${name}”, which this page does not know.`);
  }
  known("pack", settings.pack, about.packs.map((one) => one.name));
  if (specs.length > MOST_COLUMNS)
    throw new Sentence(`The link has ${specs.length} columns; there is room for ${MOST_COLUMNS}.`);
  const pack = about.packs.find((one) => one.name === settings.pack);
  if (specs.length) settings.columns = specs.map((text) => readSpec(text, pack, about));
  return settings;
}

export const RANGES = { tokens: [1, 1024, 1], temperature: [0, 2, 0], seed: [0, 2 ** 31 - 1, 1] };

function inRange(name, text, about) {
  const value = text.trim() === "" ? NaN : Number(text);
  const [low, high, whole] = RANGES[name];
  const most = name === "tokens" ? Math.min(high, about.longest ?? high) : high;
  if (!(value >= low && value <= most) || (whole && !Number.isInteger(value)))
    throw new Sentence(`${name} must be a ${whole ? "whole " : ""}number from ${low} to ${most}, not “${text}”.`);
  return value;
}

function limited(name, text) {
  if (text.length > 20000) throw new Sentence(`The ${name} in the link is longer than 20,000 characters.`);
  return text;
}

/** What is beyond the range that strengths were chosen in, one sentence each. */
export function doseWarnings(column, pack) {
  const mode = column.mode ?? pack.modes[0];
  const ranges = pack.calibrated?.[mode];
  if (!ranges || column.operator !== "add") return [];
  return Object.entries(column.weights).flatMap(([name, value]) => {
    const range = ranges[name];
    if (!range || value === 0 || (value >= range[0] && value <= range[1])) return [];
    if (value < 0 && range[0] >= 0) return [`Less ${name} than none was never tuned; read the text with care.`];
    return [`${name} ${plain(value)} is beyond ${plain(range[1])}, the dose chosen on tuning texts; the text may break.`];
  });
}

export const PRESETS = [
  { name: "One emotion", columns: (pack) => [{ [pack.emotions[0]]: 1 }] },
  { name: "All emotions side by side", columns: (pack) => pack.emotions.slice(0, MOST_COLUMNS).map((e) => ({ [e]: 1 })) },
  { name: "Four doses of one", columns: (pack) => [-0.5, 0.4, 0.7, 1].map((dose) => ({ [pack.emotions[0]]: dose })) },
  { name: "Two emotions, and both", columns: (pack) => twoAndBoth(pack.emotions) },
];

function twoAndBoth(emotions) {
  const [a, b] = [emotions.at(0), emotions.at(-1)];
  return [{ [a]: 0.8 }, { [b]: 0.8 }, { [a]: 0.5, [b]: 0.5 }];
}
