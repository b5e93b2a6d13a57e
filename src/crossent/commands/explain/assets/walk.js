// Every number of the walk from the reader's choices: the same names and values as walk.py, which
// takes them from crossent's core. What is not shown comes as sums and moments (view.py).

const sum = (values) => values.reduce((total, x) => total + x, 0);
const argmax = (values) => values.reduce((best, x, k) => (x > values[best] ? k : best), 0);
const largest = (values) => Math.max(...values.map(Math.abs));

// Softmax of a row with nothing lost: 1 - p as the sum of the others, -log p by log1p.
function softmaxRow(a) {
  const top = argmax(a), m = a[top];
  const exps = a.map((x) => Math.exp(x - m));
  const rest = sum(exps.filter((_, k) => k !== top)), total = 1 + rest;
  return {
    m, exps, total, lse: m + Math.log1p(rest),
    p: exps.map((e) => e / total),
    notP: exps.map((e, k) => (k === top ? rest : total - e) / total),
    nll: a.map((x) => m - x + Math.log1p(rest)),
  };
}

const weighted = (y, nll) => sum(y.map((share, k) => (share === 0 ? 0 : share * nll[k])));
const foldedLoss = (a, y) => weighted(y, softmaxRow(a).nll);

// p sum(y) - y, so written that nothing cancels.
function gradient({ p, notP }, y) {
  const total = sum(y);
  return p.map((prob, k) => prob * (total - y[k]) - y[k] * notP[k]);
}

function nudged(a, k, h) {
  const moved = a.slice();
  moved[k] += h;
  return moved;
}

// Central differences of a function of a row, by each of its entries.
const differences = (f, a, h) => a.map((_, k) => (f(nudged(a, k, h)) - f(nudged(a, k, -h))) / (2 * h));
const lossDifferences = (a, y, h) => differences((at) => foldedLoss(at, y), a, h);

// A shown row as the state has it: logits and target, the classes that are not shown folded into one.
function foldedRow(row, logits, target) {
  const given = target === null;
  const y = given ? row.y.slice() : logits.map((_, k) => (k === target ? 1 : 0));
  const rest = row.rest && { ...row.rest, sum_y: given ? row.rest.sum_y : 0 };
  const a = logits.slice();
  if (rest) {
    a.push(rest.lse);
    y.push(rest.sum_y);
    if (rest.sum_y === 0) rest.sum_y_logits = 0;
  }
  const soft = softmaxRow(a), shown = logits.length, t = argmax(y.slice(0, shown));
  const rival = argmax(logits.map((x, k) => (k === t ? -Infinity : x)));
  return { a, y, rest, soft, shown, t, rival, loss: rowLoss(soft, y, rest, shown) };
}

// The folded class has one logit, its members many: their part of the loss is by their own logits.
function rowLoss(soft, y, rest, shown) {
  const loss = weighted(y.slice(0, shown), soft.nll);
  return rest ? loss + rest.sum_y * soft.lse - rest.sum_y_logits : loss;
}

// Logit, share and products of the hidden classes after each moved against its gradient. The sum of
// exp(a + s y - r e^a) is a double series in s and r whose coefficients are the moments.
function restAfter(rest, soft, y, pace) {
  const total = sum(y), moments = rest.sum_y === 0 ? rest.moments.slice(0, 1) : rest.moments;
  const scale = Math.exp(rest.peak - soft.lse), r = pace * total * scale;
  let factor = 1, series = 0;
  moments.forEach((row, i) => {
    let term = factor;
    for (let j = 0; j + 1 < row.length; j++) {
      series += term * row[j + 1];
      term *= -r / (j + 1);
    }
    factor *= pace / (i + 1);
  });
  const products = moments.length > 1 ? scale * moments[1][1] : 0;
  const squares = moments.length > 1 ? moments[2][0] : 0;
  return {
    lse: rest.peak + Math.log(series),
    sum_y_logits: rest.sum_y_logits - pace * (total * products - squares),
    grad_squared: total * total * scale * scale * moments[0][2] - 2 * total * products + squares,
  };
}

// The polynomial through the losses of the hidden rows at a few step sizes.
function hiddenLosses(hidden, step) {
  return sum(hidden.losses.map((loss, n) => hidden.steps.reduce(
    (value, other, k) => (k === n ? value : (value * (step - other)) / (hidden.steps[n] - other)), loss)));
}

function sharedTarget(target, classes, keep) {
  if (classes === 1) return [1];
  const weights = Array.from({ length: classes - 1 }, (_, k) => classes - 1 - k), total = sum(weights);
  const shares = weights.map((w) => (w / total) * (1 - keep));
  return [...shares.slice(0, target), keep, ...shares.slice(target)];
}

// Every value under its name and its places: { J: [[1, 2]] } becomes J.0.0 and J.0.1.
function flat(values) {
  const entries = (name, value) =>
    Array.isArray(value) ? value.flatMap((entry, k) => entries(`${name}.${k}`, entry)) : [[name, value]];
  return Object.fromEntries(Object.entries(values).flatMap(([name, value]) => entries(name, value)));
}

function allNumbers(data, state) {
  const { chosen, logits, targets, choices } = state;
  const rows = data.rows.map((row, r) => foldedRow(row, logits[r], targets[r])), row = rows[chosen];
  return flat({
    N: data.N, C: data.C, chosen, row: data.rows[chosen].index, t: row.t, rival: row.rival,
    target: rows.map((each) => each.t), A: rows.map((each) => each.a), Y: rows.map((each) => each.y),
    ...choices,
    ...softmaxValues(row, choices),
    ...lossValues(data, rows, chosen),
    ...chainValues(row, data.nudge),
    ...checkValues(row, data),
    ...stepValues(data, rows, chosen, choices),
    ...confidentValues(choices),
    ...softValues(row, data, choices),
  });
}

function softmaxValues({ a, y, soft, t, rival }, { kappa }) {
  const { m, exps, total, lse, p, notP } = soft, size = Math.max(largest(a), 1e-9);
  const big = a.map((x) => x + kappa), naive = big.map(Math.exp), naiveP = naive.map((e) => e / sum(naive));
  return {
    a, "a.t": a[t], "size.a": a.map((x) => x / size), y,
    onehot: Math.max(...y) === 1 && sum(y) === 1, right: a[t] === m,
    m, shifted: a.map((x) => x - m), exp: exps, sum: total,
    big, "naive.exp": naive, "naive.p": naiveP, "safe.p": softmaxRow(big).p,
    breaks: naiveP.some(Number.isNaN), "shift.sign": 0,
    p, "p.t": p[t], "p.rival": p[rival], "sum.p": sum(p), "not.p.t": notP[t], lse,
  };
}

function lossValues(data, rows, chosen) {
  const losses = rows.map((row) => row.loss), hidden = data.hidden.losses[0];
  const total = sum(losses) + hidden;
  return { losses, loss: losses[chosen], "loss.hidden": hidden, "loss.sum": total, "loss.mean": total / data.N };
}

function chainValues({ a, y, soft, t, rival }, h) {
  const { p, notP } = soft, total = sum(y);
  const dp = y.map((share, k) => (share === 0 ? 0 : -share / p[k]));
  const size = largest([...dp.filter(Number.isFinite), 0]) || 1;
  const pCheck = (share, k) => (share * (Math.log(p[k] * (1 - h)) - Math.log(p[k] * (1 + h)))) / (2 * h * p[k]);
  const J = p.map((prob, i) => p.map((other, j) => (i === j ? prob * notP[i] : -prob * other)));
  const moved = a.map((_, k) => [softmaxRow(nudged(a, k, h)), softmaxRow(nudged(a, k, -h))]);
  const check = p.map((_, i) => moved.map(([up, down]) => (up.p[i] - down.p[i]) / (2 * h)));
  const term = J.map((line, k) => line.map((slope) => dp[k] * slope));
  const long = J.map((_, j) => sum(term.map((line) => line[j])));
  return {
    dp, "dp.t": dp[t], "size.dp": dp.map((x) => Math.max(-1, Math.min(1, x / size))),
    "dp.check": y.map((share, k) => (share === 0 ? 0 : pCheck(share, k))),
    J, "J.check": check, "J.size": largest(J.flat()) || 1, "J.own": J[t][t], "J.other": J[rival][t],
    "J.error": largest(J.flat().map((x, n) => x - check.flat()[n])),
    dlog: p.map((prob, i) => (i === t ? notP[i] : -prob)),
    "dlog.check": moved.map(([up, down]) => (down.nll[t] - up.nll[t]) / (2 * h)),
    own: y.map((share, k) => -share * notP[k]), others: p.map((prob, k) => prob * (total - y[k])),
    term, long, longfails: long.some(Number.isNaN),
  };
}

function checkValues({ a, y, soft, t, rival }, { nudge, nudges }) {
  const grad = gradient(soft, y), quotients = nudges.map((h) => lossDifferences(a, y, h));
  return {
    grad, "grad.check": lossDifferences(a, y, nudge), "grad.sum": sum(grad),
    "grad.t": grad[t], "grad.rival": grad[rival],
    "nudge.quotient": quotients.map((quotient) => quotient[t]),
    "nudge.error": quotients.map((quotient) => largest(quotient.map((q, k) => q - grad[k]))),
    "nudge.up": foldedLoss(nudged(a, t, nudges[0]), y),
    "nudge.down": foldedLoss(nudged(a, t, -nudges[0]), y),
  };
}

// A row after a step of size eta against the gradient of the mean over N rows.
function rowAfter({ a, y, soft, rest, shown, t }, eta, N) {
  const G = gradient(soft, y).map((g) => g / N);
  const moved = a.slice(0, shown).map((x, k) => x - eta * G[k]);
  const later = rest && { ...rest, ...restAfter(rest, soft, y, eta / N) };
  const softLater = softmaxRow(later ? [...moved, later.lse] : moved);
  const squared = sum(G.slice(0, shown).map((g) => g * g)) + (later ? later.grad_squared / (N * N) : 0);
  return { G, moved, squared, loss: rowLoss(softLater, y, later, shown), p: soft.p[t], pAfter: softLater.p[t] };
}

function stepValues({ N, nudge, hidden }, rows, chosen, { eta }) {
  const each = rows.map((row) => rowAfter(row, eta, N)), { a, y } = rows[chosen];
  const before = sum(rows.map((row) => row.loss)) + hidden.losses[0];
  const after = sum(each.map((row) => row.loss)) + hiddenLosses(hidden, eta);
  const squared = sum(each.map((row) => row.squared)) + hidden.grad_squared;
  return {
    G: each.map((row) => row.G), Grow: each[chosen].G, movedrow: each[chosen].moved,
    "G.check": lossDifferences(a, y, nudge).map((g) => g / N), "G.squared": squared,
    pt: each.map((row) => row.p), "pt.after": each.map((row) => row.pAfter),
    "step.before": before / N, "step.after": after / N, "step.sign": (after - before) / N,
    "step.predicted": before / N - eta * squared,
  };
}

function confidentValues({ x: lead, eps }) {
  const R = 2 * Math.exp(-lead), smoothed = -R / (1 + R) + (2 * eps) / 3;
  const values = { "sure.R": R, "sure.smoothed": smoothed, toosure: smoothed > 0 };
  for (const [bits, round] of [["64", (x) => x], ["32", Math.fround]]) {
    const x = round(lead), others = 2 * Math.exp(-Math.abs(x));
    const small = round(Math.exp(-x)), total = round(round(1 + small) + small), p = round(1 / total);
    values[`sure.loss.${bits}`] = Math.log1p(others);
    values[`sure.grad.${bits}`] = -others / (1 + others);
    values[`sure.naive.loss.${bits}`] = -round(Math.log(p)) + 0;
    values[`sure.naive.grad.${bits}`] = round(p - 1);
  }
  return values;
}

function softValues({ a, y, soft, rest, shown, loss, t }, { C, nudge }, { keep, eps }) {
  const shared = [...sharedTarget(t, shown, keep), ...(rest ? [0] : [])];
  const softLoss = weighted(shared, soft.nll), softGrad = gradient(soft, shared);
  const count = (k) => (k < shown ? 1 : rest.count);
  const q = y.map((share, k) => (1 - eps) * share + (eps * count(k)) / C);
  const even = (sum(soft.nll.slice(0, shown)) + (rest ? rest.count * soft.lse - rest.sum_logits : 0)) / C;
  return {
    "soft.y": shared, "soft.loss": softLoss, "soft.grad": softGrad, "soft.check": lossDifferences(a, shared, nudge),
    "half.loss": softLoss / 2, "half.grad": softGrad.map((g) => g / 2),
    q, "smooth.loss": (1 - eps) * loss + eps * even, "smooth.grad": gradient(soft, q),
    "smooth.check": lossDifferences(a, q, nudge), "smooth.keep": 1 - eps, "smooth.even": even,
  };
}
