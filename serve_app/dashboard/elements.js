// Making and refilling elements. Text only, never markup.

const SVG = "http://www.w3.org/2000/svg";
export const $ = (id) => document.getElementById(id);

export function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// `value` as text, only when it differs: a screen reader says what changes, and a selection stays.
export function say(id, value) {
  if ($(id).textContent !== value) $(id).textContent = value;
}

// Built again only when what it says has changed, so that focus and selection stay and nothing is announced twice.
export function refill(box, said, build) {
  const mark = JSON.stringify(said);
  if (box.dataset.mark === mark) return;
  box.dataset.mark = mark;
  box.replaceChildren(...build());
}

// Buttons of which one is pressed.
export function choices(box, options, chosen, choose) {
  const focused = box.contains(document.activeElement);
  refill(box, [options, chosen], () => options.map(([label, value]) => {
    const button = make("button", "choice", label);
    button.type = "button";
    button.setAttribute("aria-pressed", String(value === chosen));
    button.addEventListener("click", () => choose(value));
    return button;
  }));
  if (focused) box.querySelector("[aria-pressed=true]")?.focus();
}

export function sparkline(values) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 100 24");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  if (values.length < 2) return svg;
  const low = Math.min(...values);
  const high = Math.max(...values);
  const points = values.map((v, i) => `${((i / (values.length - 1)) * 100).toFixed(1)},${(22 - (20 * (v - low)) / (high - low || 1)).toFixed(1)}`);
  const path = document.createElementNS(SVG, "polyline");
  path.setAttribute("points", points.join(" "));
  svg.append(path);
  return svg;
}
