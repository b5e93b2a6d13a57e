// What the reader has chosen, kept in the address after the #: a=2,1,0.1;0.1,2,1.9&t=1,0&row=0 ...
// Only what differs from the page's own numbers is written.

const firstState = (data) => ({ ...structuredClone(data.first), reveal: false, at: "" });

function readState(data, fragment) {
  const state = firstState(data), given = new URLSearchParams(fragment.replace(/^#/, ""));
  const number = (text) => (text !== null && text.trim() !== "" && Number.isFinite(Number(text)) ? Number(text) : null);
  const logits = (given.get("a") || "").split(";").map((row) => row.split(",").map(number));
  const fits = logits.length === data.rows.length &&
    logits.every((row, r) => row.length === state.logits[r].length && !row.includes(null));
  if (fits) state.logits = logits;
  const targets = (given.get("t") || "").split(",");
  if (targets.length === data.rows.length) {
    targets.forEach((text, r) => {
      const place = number(text);
      if (text === "y" && data.first.targets[r] === null) state.targets[r] = null;
      else if (Number.isInteger(place) && place >= 0 && place < state.logits[r].length) state.targets[r] = place;
    });
  }
  const row = data.rows.findIndex(({ index }) => String(index) === given.get("row"));
  if (row >= 0) state.chosen = row;
  for (const [name, { parameter, low, high }] of Object.entries(data.choices)) {
    const value = number(given.get(parameter));
    if (value !== null) state.choices[name] = Math.max(low, Math.min(high, value));
  }
  state.reveal = given.get("show") === "1";
  state.at = given.get("at") || "";
  return { state, misfit: given.has("a") && !fits };
}

function writeState(data, state) {
  const first = firstState(data), parts = [];
  const differs = (name) => JSON.stringify(state[name]) !== JSON.stringify(first[name]);
  if (differs("logits")) parts.push(`a=${state.logits.map((row) => row.join(",")).join(";")}`);
  if (differs("targets")) parts.push(`t=${state.targets.map((t) => (t === null ? "y" : t)).join(",")}`);
  if (differs("chosen")) parts.push(`row=${data.rows[state.chosen].index}`);
  for (const [name, { parameter, first }] of Object.entries(data.choices)) {
    if (state.choices[name] !== first) parts.push(`${parameter}=${state.choices[name]}`);
  }
  if (state.reveal) parts.push("show=1");
  if (state.at) parts.push(`at=${state.at}`);
  return parts.join("&");
}
