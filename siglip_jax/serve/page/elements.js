// Elements of the page. Text is set as text: nothing that a server or a user gives is HTML.

export const find = (id) => document.getElementById(id);

/** A new element: `make("li", { className: "hit" }, child, "text")`. */
export function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

/** A button that removes something, named for those who do not see where it stands. */
export function remover(what, remove) {
  const button = make("button", { type: "button", className: "remove", onclick: remove }, "✕");
  button.setAttribute("aria-label", `Remove ${what}`);
  return button;
}

/** Says something to those who hear the page. */
export function say(text) {
  find("status").textContent = text;
}

/** Calls `run` once nothing has called for a while. */
export function afterwards(run, milliseconds) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(run, milliseconds);
  };
}

/** A probability as people read it. */
export function percent(probability) {
  if (probability > 0 && probability < 0.001) return "< 0.1%";
  if (probability < 1 && probability > 0.999) return "> 99.9%";
  return `${(100 * probability).toFixed(1)}%`;
}

export const signed = (number, digits) =>
  (number < 0 ? "−" : "+") + Math.abs(number).toFixed(digits);

export const sigmoid = (logit) => 1 / (1 + Math.exp(-logit));
