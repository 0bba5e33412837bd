// What is on the page, as a request from a shell or from Python.

import { address, hasKey } from "./api.js";
import { find, make, say } from "./elements.js";

const quoted = (text) =>
  /^[\w./:=@+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;

// curl reads a field that begins with @ or < from a file, and takes what follows a ; for a type.
const field = (name, value) =>
  (/^[@<"]|;/.test(value) ? "--form-string " : "-F ") + quoted(`${name}=${value}`);

const upload = (name) =>
  "-F " + quoted(/[,;"\\]/.test(name)
    ? `image=@"${name.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`
    : `image=@${name}`);

function curl({ model, names, labels, templates, calibrated }) {
  const lines = [`curl ${address("v1/classify")}`, field("model", model)];
  if (hasKey()) lines.splice(1, 0, '-H "Authorization: Bearer $API_KEY"');
  lines.push(...names.map(upload), ...labels.map((label) => field("labels", label)));
  lines.push(...templates.map((template) => field("templates", template)));
  if (calibrated) lines.push(field("calibration", "auto"));
  return lines.join(" \\\n  ");
}

// JSON's strings, and lists of them, are Python's.
function python({ model, names, labels, templates, calibrated }) {
  const python = JSON.stringify;
  const list = (values) => `[${values.map((value) => python(value)).join(", ")}]`;
  const key = hasKey();
  return [
    `import base64, json, ${key ? "os, " : ""}urllib.request`,
    "from pathlib import Path",
    "",
    `files = ${list(names)}`,
    "body = {",
    `    "model": ${python(model)},`,
    '    "input": [base64.b64encode(Path(file).read_bytes()).decode() for file in files],',
    `    "labels": ${list(labels)},`,
    ...(templates.length ? [`    "templates": ${list(templates)},`] : []),
    ...(calibrated ? ['    "calibration": "auto",'] : []),
    "}",
    'headers = {"Content-Type": "application/json"}',
    ...(key ? ['headers["Authorization"] = "Bearer " + os.environ["API_KEY"]'] : []),
    `url = ${python(address("v1/classify"))}`,
    "request = urllib.request.Request(url, json.dumps(body).encode(), headers)",
    "with urllib.request.urlopen(request) as response:",
    '    for file, image in zip(files, json.load(response)["data"]):',
    '        for score in image["scores"]:',
    "            print(f\"{file}  {score['score']:6.1%}  {score['label']}\")",
  ].join("\n");
}

const LANGUAGES = { curl, python };

export class Code {
  constructor() {
    this.language = "curl";
    for (const button of document.querySelectorAll("[data-language]")) {
      button.addEventListener("click", () => {
        this.language = button.dataset.language;
        for (const other of document.querySelectorAll("[data-language]")) {
          other.setAttribute("aria-pressed", String(other === button));
        }
        this.show(this.last);
      });
    }
    find("copy").addEventListener("click", () => this.copy());
  }

  show(asked) {
    this.last = asked;
    find("code-part").hidden = !asked.names.length || !asked.labels.length;
    find("code").textContent = LANGUAGES[this.language](asked);
  }

  async copy() {
    const text = find("code").textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Only pages by https and of this machine have a clipboard.
      const area = make("textarea", { value: text, className: "unseen" });
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
      find("copy").focus();
    }
    find("copy").textContent = "Copied";
    say("Copied");
    setTimeout(() => { find("copy").textContent = "Copy"; }, 1500);
  }
}
