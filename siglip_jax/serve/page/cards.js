// A card for every image: its bars, or what the server says is wrong with it.

import { make, percent, remover, sigmoid, signed } from "./elements.js";

const SHOWN = 10; // bars, until all are asked for
const STILL = matchMedia("(prefers-reduced-motion: reduce)");
const MOVE = { duration: 260, easing: "cubic-bezier(.2,.7,.2,1)" };

export class Card {
  constructor(picture, remove) {
    this.picture = picture;
    this.rows = new Map(); // label to its row
    const image = make("img", { src: picture.url, alt: "" });
    const seen = make("div", { className: "image" }, image);
    // Formats that this browser does not know may be ones that the server does.
    image.onerror = () => seen.replaceChildren(make("p", { className: "help" }, "No preview"));
    this.bars = make("ol", { className: "bars" });
    this.more = make("button", { type: "button", className: "quiet more", hidden: true });
    this.more.onclick = () => {
      this.whole = !this.whole;
      this.show(this.last);
    };
    this.wrong = make("p", { className: "wrong", hidden: true });
    this.element = make("article", { className: "card" },
      make("figure", {}, seen, make("figcaption", {},
        make("span", { title: picture.name }, picture.name), remover(picture.name, remove))),
      make("div", {}, this.wrong, this.bars, this.more));
    this.element.setAttribute("aria-label", picture.name);
  }

  set waiting(yes) {
    this.element.classList.toggle("waiting", yes);
    this.element.setAttribute("aria-busy", String(yes));
  }

  /** Shows the scores of `labels`, each logit moved by `bias`. */
  show({ labels, draft, bias, thresholds }) {
    this.last = { labels, draft, bias, thresholds };
    const { scores, error } = this.picture;
    this.wrong.textContent = error;
    this.wrong.hidden = !error;
    const wanted = new Set(labels);
    const kept = error ? [] : (scores ?? []).filter(({ label }) => wanted.has(label));
    const shown = this.whole ? kept : kept.slice(0, SHOWN);
    const before = this.places();
    const items = shown.map(({ label, logit }) => {
      const row = this.rows.get(label) ?? newRow(label);
      this.rows.set(label, row);
      row.fill({ logit, bias, threshold: thresholds(label), draft: label === draft });
      return row.item;
    });
    const now = [...this.bars.children];
    if (items.length !== now.length || items.some((item, n) => item !== now[n])) {
      this.bars.replaceChildren(...items);
    }
    this.slide(before);
    for (const label of this.rows.keys()) if (!wanted.has(label)) this.rows.delete(label);
    this.more.hidden = kept.length <= SHOWN;
    this.more.textContent = this.whole ? "Show the best only" : `Show all ${kept.length}`;
  }

  places() {
    const found = new Map();
    for (const row of this.rows.values()) {
      if (row.item.isConnected) {
        found.set(row, [row.item.offsetTop, row.bar.getBoundingClientRect().width]);
      }
    }
    return found;
  }

  /** Bars go from where and as long as they were. */
  slide(before) {
    if (STILL.matches) return;
    for (const row of this.rows.values()) {
      if (!row.item.isConnected) continue;
      const [top, width] = before.get(row) ?? [row.item.offsetTop, 0];
      for (const moving of [row.item, row.bar]) {
        moving.getAnimations().forEach((animation) => animation.cancel());
      }
      const now = row.bar.getBoundingClientRect().width;
      if (Math.abs(now - width) >= 1) row.bar.animate([{ width: `${width}px` }, {}], MOVE);
      const down = top - row.item.offsetTop;
      if (down) row.item.animate([{ transform: `translateY(${down}px)` }, {}], MOVE);
    }
  }
}

function newRow(label) {
  const bar = make("i");
  const line = make("b", { hidden: true });
  const track = make("div", { className: "track" }, bar, line);
  track.setAttribute("aria-hidden", "true");
  const number = make("span");
  const logit = make("span", { className: "logit", title: "logit" },
    make("span", { className: "unseen" }, "logit "), number);
  const probability = make("span", { className: "percent" });
  const item = make("li", {}, make("span", { className: "name" }, label),
    make("span", { className: "numbers" }, logit, probability), track);
  const accepted = make("span", { className: "unseen" });
  item.append(accepted);
  const fill = ({ logit: value, bias, threshold, draft }) => {
    const p = sigmoid(value + bias);
    number.textContent = signed(value, 2);
    probability.textContent = percent(p);
    bar.style.width = `${100 * p}%`;
    item.classList.toggle("draft", draft);
    const calibrated = threshold !== undefined;
    item.classList.toggle("low", calibrated ? value < threshold : p < 0.5);
    line.hidden = !calibrated;
    if (!calibrated) return;
    line.style.left = `${100 * sigmoid(threshold + bias)}%`;
    line.title = "The calibrated threshold";
    accepted.textContent = value < threshold ? "below the threshold" : "above the threshold";
  };
  return { item, bar, fill };
}
