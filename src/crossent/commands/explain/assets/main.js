// The page's play: sliders, targets, questions, the heat map's keys, the address.

const data = JSON.parse($("#data").textContent);
let { state, misfit } = readState(data, location.hash);
let numbers = {}, words = {}, cell = null;
const answered = new Set();

function update({ keepAddress = false } = {}) {
  numbers = allNumbers(data, state);
  words = allWords(data, state, numbers);
  drawText(numbers, words);
  drawFlags(numbers);
  drawBars(numbers);
  drawMarks(numbers);
  drawCurve(numbers);
  if (cell) drawTerm(cell, numbers, words);
  drawQuestions();
  syncControls();
  if (!keepAddress) writeAddress();
}

function writeAddress() {
  const text = writeState(data, state);
  history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
}

// --- Controls ------------------------------------------------------------------------------------

function syncControls() {
  const logits = state.logits[state.chosen], target = state.targets[state.chosen];
  for (const input of $$("[data-logit]")) {
    const value = logits[Number(input.dataset.logit)];
    if (input.type === "range") input.value = value;
    else if (input !== document.activeElement) input.value = Number(value.toPrecision(6));
  }
  for (const input of $$("[name=target]")) {
    input.checked = input.value === (target === null ? "y" : String(target));
    input.closest("[data-given]")?.toggleAttribute("hidden", data.first.targets[state.chosen] !== null);
  }
  for (const input of $$("[name=row]")) input.checked = Number(input.value) === state.chosen;
  for (const input of $$("[data-part]")) input.value = state.choices[input.dataset.part];
  $("#reveal").checked = state.reveal;
}

function setTarget(place) {
  state.targets[state.chosen] = place;
  update();
}

function say(text) {
  $("#said").textContent = text;
}

document.addEventListener("input", ({ target }) => {
  const { logit, part } = target.dataset, value = Number(target.value);
  if (logit && target.value !== "" && Number.isFinite(value)) state.logits[state.chosen][Number(logit)] = value;
  if (part) state.choices[part] = value;
  if (logit || part) update();
});

document.addEventListener("change", ({ target }) => {
  if (target.name === "row") state.chosen = Number(target.value);
  if (target.id === "reveal") state.reveal = target.checked;
  if (target.name?.startsWith("ask-")) answer(target.closest(".ask"));
  if (target.name === "target") setTarget(target.value === "y" ? null : Number(target.value));
  else update();
});

document.addEventListener("click", (event) => {
  const pick = event.target.closest("[data-pick]"), link = event.target.closest('a[href^="#"]');
  const button = event.target.closest("button");
  if (pick) setTarget(Number(pick.dataset.pick));
  if (link) {
    event.preventDefault();
    goTo(link.getAttribute("href").slice(1));
  }
  if (button?.id === "reset") {
    state = { ...firstState(data), reveal: state.reveal };
    update();
    say("The page's own numbers are back.");
  }
  if (button?.id === "copy") copyAddress();
  if (button?.id === "fold") setPanel(button.getAttribute("aria-expanded") !== "true");
  if (button?.hasAttribute("data-show")) answer(button.closest(".ask"), true);
});

async function copyAddress() {
  writeAddress();
  try {
    await navigator.clipboard.writeText(location.href);
    say("Link copied.");
  } catch {
    say("Copy the link from the address bar: it holds your numbers.");
  }
}

function setPanel(open) {
  $("#fold").setAttribute("aria-expanded", open);
  $("#panel").classList.toggle("open", open);
}

function goTo(id, behavior = "auto") {
  const section = document.getElementById(id);
  if (!section) return;
  const heading = $("h1,h2", section) || section;
  heading.tabIndex = -1;
  heading.focus({ preventScroll: true });
  section.scrollIntoView({ behavior });
  state.at = id === "top" ? "" : id;
  writeAddress();
}

// --- Questions -----------------------------------------------------------------------------------

function answer(ask, shown = false) {
  const sets = $$("fieldset", ask);
  if (shown || sets.every((set) => $("input:checked", set))) answered.add(ask.dataset.ask);
  drawQuestions();
}

function drawQuestions() {
  for (const ask of $$(".ask")) {
    const open = state.reveal || answered.has(ask.dataset.ask);
    for (const set of $$("fieldset", ask)) drawVerdict(set, open);
    ask.classList.toggle("answered", open);
  }
  for (const veil of $$("[data-veil]")) {
    veil.classList.toggle("veiled", !state.reveal && !answered.has(veil.dataset.veil));
  }
}

function drawVerdict(set, open) {
  const value = numbers[set.dataset.sign], chosen = $("input:checked", set), verdict = $(".verdict", set);
  const truth = $(`input[value="${Math.sign(value)}"]`, set).nextElementSibling.textContent;
  const number = set.dataset.quiet ? "" : `, ${writeNumber(value)}`;
  if (!chosen && !open) verdict.textContent = "";
  else if (!chosen) verdict.textContent = `Answer: ${truth}${number}.`;
  else if (Number(chosen.value) === Math.sign(value)) verdict.textContent = `Yes: ${truth}${number}.`;
  else verdict.textContent = `No: it is ${truth}${number}. The next lines say why.`;
  verdict.classList.toggle("wrong", Boolean(chosen) && Number(chosen.value) !== Math.sign(value));
}

// --- The heat map --------------------------------------------------------------------------------

// One stop of the Tab key for the whole map; the arrow keys move in it.
function focusOnly(stop) {
  for (const each of $$("[data-cell]")) each.tabIndex = each === stop ? 0 : -1;
}

function pointAt({ target }) {
  if (!target.closest("[data-cell]")) return;
  cell = target.closest("[data-cell]");
  focusOnly(cell);
  drawTerm(cell, numbers, words);
}

$(".heat").role = "grid";
$(".heat").addEventListener("pointerover", pointAt);
$(".heat").addEventListener("focusin", pointAt);
$(".heat").addEventListener("keydown", (event) => {
  const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  const here = event.target.closest("[data-cell]");
  if (!move || !here) return;
  event.preventDefault();
  const [i, j] = here.dataset.cell.split(" ").map(Number);
  $(`[data-cell="${i + move[0]} ${j + move[1]}"]`)?.focus();
});

// --- Begin ---------------------------------------------------------------------------------------

function openAll(open) {
  for (const details of $$("details.proof")) details.open = open;
}

addEventListener("hashchange", () => {
  ({ state, misfit } = readState(data, location.hash));
  update({ keepAddress: true });
  if (state.at) goTo(state.at, "instant");
});
addEventListener("beforeprint", () => openAll(true));

document.documentElement.classList.add("js");
focusOnly($("[data-cell]"));
openAll(false);
setPanel(false);
update({ keepAddress: true });
if (misfit) say("The link's numbers are for another problem; these are the page's own.");
if (state.at) goTo(state.at, "instant");
