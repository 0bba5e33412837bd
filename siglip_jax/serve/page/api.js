// Requests to the server that this page came from, and its errors in words.

const WAITS = 3; // times that a request is made again when the server is full or starting
let key = "";
try {
  key = sessionStorage.getItem("siglip_jax key") ?? "";
} catch {
  // Storage may be forbidden; then the key is asked for again after a reload.
}

export const hasKey = () => key !== "";

export function useKey(given) {
  key = given.trim();
  try {
    sessionStorage.setItem("siglip_jax key", key);
  } catch {
    // As above.
  }
}

/** What the server refuses: `status`, its own words, the field that they are about. */
export class Refusal extends Error {
  constructor(status, { message, param }) {
    super(message);
    Object.assign(this, { status, param });
  }
}

/** Where a path of the API is, in full. */
export const address = (path) => new URL(path, document.baseURI).href;

/** The answer as JSON; `body` makes it a POST. */
export const ask = async (path, body, signal) => (await answer(path, body, signal)).json();

/** The answer as a Blob: what <img> would fetch without the key. */
export const file = async (path, signal) => (await answer(path, undefined, signal)).blob();

async function answer(path, body, signal) {
  for (let tries = 0; ; tries++) {
    const response = await once(path, body, signal);
    if (response.ok) return response;
    const wait = Number(response.headers.get("Retry-After"));
    if ([429, 503].includes(response.status) && wait && tries < WAITS && wait <= 10) {
      await pause(1000 * wait, signal);
      continue;
    }
    throw new Refusal(response.status, await problem(response));
  }
}

async function once(path, body, signal) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const options = { headers, signal };
  if (body !== undefined) {
    headers["Content-Type"] = "application/json";
    Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  }
  try {
    return await fetch(address(path), options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, { message: "The server does not answer. Is it still running?" });
  }
}

async function problem(response) {
  try {
    const { error } = await response.json();
    if (error?.message) return error;
  } catch {
    // A proxy's page, say.
  }
  return { message: `The server answered ${response.status} ${response.statusText}`.trim() + "." };
}

/** Waits; an abort of `signal` ends it. */
export const pause = (milliseconds, signal) =>
  new Promise((done, failed) => {
    const stop = () => {
      clearTimeout(timer);
      failed(new DOMException("stopped", "AbortError"));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      done();
    }, milliseconds);
    signal?.addEventListener("abort", stop, { once: true });
  });
