// A point of valence and arousal as a mixture of emotions: the same computation as mixture_for of
// affectlens/steering/affect_targets.py, which explains it; a test holds the two together.

const NEARNESS = 0.05;
const LEAST = 0.01;
const MOST_SWEEPS = 20000;
const SETTLED = 1e-9;

/** Strengths of emotions ({name: [valence, arousal]}) that together lie at a point. */
export function mixtureFor(points, target) {
  const names = Object.keys(points);
  const places = names.map((name) => points[name]);
  const dot = (a, b) => a[0] * b[0] + a[1] * b[1];
  const far = places.map((place) => Math.hypot(place[0] - target[0], place[1] - target[1]));
  const products = places.map((a, i) => places.map((b, k) => dot(a, b) + (i === k ? NEARNESS * far[i] ** 2 : 0)));
  const slopes = places.map((place) => dot(place, target));
  const found = names.map(() => 0);
  for (let sweep = 0; sweep < MOST_SWEEPS; sweep += 1) {
    let moved = 0;
    for (let i = 0; i < names.length; i += 1) {
      const reached = products[i].reduce((sum, product, k) => sum + product * found[k], 0);
      const next = Math.max(0, found[i] + (slopes[i] - reached) / products[i][i]);
      moved = Math.max(moved, Math.abs(next - found[i]));
      found[i] = next;
    }
    if (moved < SETTLED) break;
  }
  const most = Math.max(1, found.reduce((sum, one) => sum + one, 0));
  return Object.fromEntries(names.map((name, i) => [name, found[i] / most]).filter(([, one]) => one >= LEAST));
}
