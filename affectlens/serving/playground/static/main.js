// The page: theme, and the playground over HTTP.

import { mount } from "./app.js";
import { httpConnection } from "./connection.js";

const THEMES = ["auto", "light", "dark"];
const theme = document.querySelector("#theme");

function useTheme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  theme.textContent = `Theme: ${name}`;
  try {
    localStorage.setItem("affectlens.theme", name);
  } catch {
    // Kept until the page is closed.
  }
}

let current = "auto";
try {
  current = THEMES.includes(localStorage.getItem("affectlens.theme")) ? localStorage.getItem("affectlens.theme") : "auto";
} catch {
  // No storage: the system's theme.
}
useTheme(current);
theme.addEventListener("click", () => {
  current = THEMES[(THEMES.indexOf(current) + 1) % THEMES.length];
  useTheme(current);
});

const app = await mount(document.querySelector("#app"), httpConnection(""), { page: true, hash: location.hash });
if (app) {
  document.querySelector("#model").textContent = app.about.model;
  document.title = `${app.about.model} · AffectLens`;
  document.documentElement.dataset.ready = "yes";
}
