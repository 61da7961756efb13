// What the browser keeps for the reader: language, appearance and time zone for good, the token for this tab.

import { LANGUAGES } from "./texts.js";

const CHOICES = { language: LANGUAGES, theme: ["auto", "light", "dark"], zone: ["utc", "local"] };
const TOKEN = "lstmc.token";

// Where storage is forbidden the page still works, until it is loaded again.
function storage(kind) {
  try {
    return window[kind];
  } catch {
    const held = new Map();
    return { getItem: (name) => held.get(name) ?? null, setItem: (name, value) => held.set(name, value), removeItem: (name) => held.delete(name) };
  }
}

const kept = storage("localStorage");
const tab = storage("sessionStorage");

export const token = {
  get: () => tab.getItem(TOKEN),
  set: (value) => tab.setItem(TOKEN, value),
  forget: () => tab.removeItem(TOKEN),
};

function ofBrowser() {
  const wanted = navigator.languages.map((tag) => tag.split("-")[0]);
  return wanted.find((language) => LANGUAGES.includes(language)) ?? "en";
}

export function preference(name) {
  const chosen = kept.getItem(`lstmc.${name}`);
  if (CHOICES[name].includes(chosen)) return chosen;
  return name === "language" ? ofBrowser() : CHOICES[name][0];
}

// Shows each preference in its <select> and calls `changed(name, value)` when the reader takes another.
export function wirePreferences(changed) {
  for (const name of Object.keys(CHOICES)) {
    const select = document.getElementById(name);
    select.value = preference(name);
    select.addEventListener("change", () => {
      kept.setItem(`lstmc.${name}`, select.value);
      changed(name, select.value);
    });
  }
}
