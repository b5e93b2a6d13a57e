// Brings numbers, words, bars and colours of the page up to date; every element names its key.

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

function allWords(data, { chosen }, numbers) {
  const { names, short } = data.rows[chosen];
  const target = data.rows.map((row, r) => row.names[numbers[`target.${r}`]]);
  return flat({ name: names, short, target, "t.name": names[numbers.t], "rival.name": names[numbers.rival] });
}

function drawText(numbers, words) {
  for (const element of $$("[data-k]")) {
    const value = numbers[element.dataset.k];
    element.textContent = writeNumber(value, element.dataset.f);
    element.dataset.v = String(Number(value.toPrecision(9)));
  }
  for (const element of $$("[data-w]")) element.textContent = words[element.dataset.w];
  // Labels say the class's name, which changes with the row.
  for (const element of $$("[data-label]")) {
    element.setAttribute("aria-label", element.dataset.label.replace(/name\.\d+/, (key) => words[key]));
  }
}

function drawFlags(numbers) {
  for (const element of $$("[data-if]")) {
    const [, not, name] = element.dataset.if.match(/^(not )?(\w+)$/);
    element.hidden = Boolean(numbers[name]) === Boolean(not);
  }
}

function drawBars(numbers) {
  for (const bar of $$("[data-bar]")) {
    const value = numbers[bar.dataset.bar] / (numbers[bar.dataset.size] || 1);
    bar.style.setProperty("--v", Math.min(Math.abs(value), 1));
    bar.classList.toggle("below", value < 0);
  }
}

// The marks that move with the choice of row and target: "target t 2" marks a target where t is 2.
function drawMarks(numbers) {
  for (const element of $$("[data-mark]")) {
    const [mark, key, value] = element.dataset.mark.split(" ");
    element.classList.toggle(mark, numbers[key] === Number(value));
  }
}

function drawCurve(numbers) {
  const { left, top, width, height, most } = data.curve, p = numbers["p.t"];
  const loss = p > 0 ? Math.min(-Math.log(p), most) : most;
  const x = left + width * p, y = top + height * (1 - loss / most);
  $("#dot").setAttribute("cx", x);
  $("#dot").setAttribute("cy", y);
  $("#drop").setAttribute("d", `M${left} ${y}H${x}V${top + height}`);
}

// One entry of the Jacobian in words and numbers.
function drawTerm(cell, numbers, words) {
  const [i, j] = cell.dataset.cell.split(" ").map(Number);
  const write = (key) => writeNumber(numbers[key]), p = `p<sub>i</sub>`;
  const value = `<b>${write(`J.${i}.${j}`)}</b>; finite difference ${write(`J.check.${i}.${j}`)}`;
  const own = `${p} (1 − ${p}) = ${write(`p.${i}`)} · (1 − ${write(`p.${i}`)}) = ${value}`;
  const other = `−${p} p<sub>j</sub> = −${write(`p.${i}`)} · ${write(`p.${j}`)} = ${value}`;
  const line = document.createElement("span");
  line.innerHTML = i === j ? `: own logit, ${own}` : `: ${other}`;
  const names = document.createElement("span");
  names.textContent = i === j ? words[`name.${i}`] : `${words[`name.${i}`]} by the logit of ${words[`name.${j}`]}`;
  $("#term").replaceChildren(names, line);
}
