// The page's texts, one JSON file for each language. Knows neither figures nor elements but those marked data-text.

export const LANGUAGES = ["en", "uk"];

// All at once: the reader can change the language while the server is away.
const read = async (language) => [language, await (await fetch(`/static/${language}.json`)).json()];
const all = Object.fromEntries(await Promise.all(LANGUAGES.map(read)));
let texts = all.en;
let plural = new Intl.PluralRules("en");

export function speak(language) {
  texts = all[language];
  plural = new Intl.PluralRules(language);
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = t(element.dataset.text);
  for (const element of document.querySelectorAll("[data-label]")) element.setAttribute("aria-label", t(element.dataset.label));
}

export const has = (key) => key in texts;

// The text of `key` with {name} filled from `values`; a text with plural forms chooses by `count`.
export function t(key, values = {}, count = 0) {
  const found = texts[key];
  const text = typeof found === "object" ? found[plural.select(count)] : found;
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}
