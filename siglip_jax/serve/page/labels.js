// The list of labels: what was entered, and what is being typed.

import { find, make, remover, say } from "./elements.js";

const MANY = 40; // then they scroll

export class Labels {
  /** `changed` is called after every change, `typed` while a label is being typed. */
  constructor(changed, typed) {
    this.entered = [];
    this.changed = changed;
    this.input = find("label");
    this.input.addEventListener("input", typed);
    this.input.addEventListener("paste", (event) => this.paste(event));
    this.input.addEventListener("keydown", (event) => {
      // Held down, it empties what is typed and stops there.
      if (event.key === "Backspace" && !event.repeat && !this.input.value) {
        this.remove(this.entered.at(-1));
      }
    });
    find("label-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.add([this.input.value]);
      this.input.value = "";
      this.input.focus();
    });
    find("clear-labels").addEventListener("click", () => {
      this.entered = [];
      this.show();
      this.input.focus();
    });
  }

  /** What is being typed, if it is not among the labels. */
  get draft() {
    const text = this.input.value.trim();
    return text && !this.entered.includes(text) ? text : "";
  }

  get all() {
    return this.draft ? [...this.entered, this.draft] : this.entered;
  }

  /** These and no others. */
  set(labels) {
    this.entered = [];
    this.input.value = "";
    this.add(labels);
  }

  add(labels) {
    const wanted = labels.map((label) => label.trim()).filter(Boolean);
    const before = this.entered.length;
    this.entered = [...new Set([...this.entered, ...wanted])];
    this.show();
    const added = this.entered.length - before;
    if (wanted.length) say(added === 1 ? `Added ${wanted[0]}` : `Added ${added} labels`);
  }

  remove(label) {
    if (label === undefined) return;
    this.entered = this.entered.filter((other) => other !== label);
    this.show();
    say(`Removed ${label}`);
    this.input.focus();
  }

  paste(event) {
    const lines = (event.clipboardData?.getData("text/plain") ?? "").split(/\r?\n/);
    if (lines.length < 2) return;
    event.preventDefault();
    this.add(lines);
  }

  show() {
    const chips = this.entered.map((label) =>
      make("li", { className: "chip" }, make("span", {}, label),
        remover(label, () => this.remove(label))),
    );
    find("chips").replaceChildren(...chips);
    find("chips").classList.toggle("many", chips.length > MANY);
    find("clear-labels").hidden = chips.length < 2;
    this.input.placeholder = chips.length ? "another label" : "a red heart";
    this.changed();
  }
}
