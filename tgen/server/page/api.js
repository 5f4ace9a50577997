// Talks to the server: JSON in and out, streams of events, and the key if the server has one.
import { byId } from "./dom.js";

const STORED = "tgen-key"; // for this tab alone, until it is closed

/** An answer that is an error, with the server's message. */
export class Refused extends Error {}

/** The server's answer to a request. Asks for the key if the server wants one. Throws Refused. */
async function answer(path, body, signal) {
  for (;;) {
    const key = sessionStorage.getItem(STORED);
    const headers = { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
    const options = body === undefined ? { headers, signal } : { method: "POST", headers, signal, body: JSON.stringify(body) };
    let found;
    try {
      found = await fetch(path, options);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refused("the server does not answer; is it still running?");
    }
    if (found.ok) return found;
    if (found.status !== 401) {
      const said = await found.json().catch(() => null);
      throw new Refused(said?.error?.message ?? `the server answered with status ${found.status}`);
    }
    if (sessionStorage.getItem(STORED) === key) await askForKey(key !== null);
  }
}

/** The object that answers a request, which is a GET without a body. Throws Refused. */
export async function ask(path, body, signal) {
  return (await answer(path, body, signal)).json();
}

/** The events that answer a request, as they come. Throws Refused. */
export async function* events(path, body, signal) {
  const reader = (await answer(path, body, signal)).body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new Refused("the connection broke");
    const parts = (held + value).split("\n\n");
    held = parts.pop();
    for (const part of parts) {
      if (part === "data: [DONE]") return;
      if (!part.startsWith("data: ")) continue; // a comment that keeps the connection alive
      const event = JSON.parse(part.slice(6));
      if (event.error) throw new Refused(event.error.message);
      yield event;
    }
  }
}

let asking = null;

/** Wait until a person has given a key; `wrong` says that the last one was wrong. */
function askForKey(wrong) {
  asking ??= new Promise((resolve) => {
    const dialog = byId("key");
    byId("key-problem").hidden = !wrong;
    byId("key-value").value = "";
    dialog.addEventListener("close", () => {
      asking = null;
      sessionStorage.setItem(STORED, byId("key-value").value);
      resolve();
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}
