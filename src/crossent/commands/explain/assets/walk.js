// Every number of the walk from the reader's choices: the same keys and values as walk.py, which
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

// A shown row as the state has it: logits and target, the classes that are not shown folded into one.
function foldedRow(shown, logits, target) {
  const given = target === null;
  const y = given ? shown.y.slice() : logits.map((_, k) => (k === target ? 1 : 0));
  const rest = shown.rest && { ...shown.rest, sum_y: given ? shown.rest.sum_y : 0 };
  const a = logits.slice();
  if (rest) {
    a.push(rest.lse);
    y.push(rest.sum_y);
    if (rest.sum_y === 0) rest.sum_y_logits = 0;
  }
  const soft = softmaxRow(a);
  return { a, y, rest, soft, shown: logits.length, loss: rowLoss(soft, y, rest, logits.length) };
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

function allNumbers(data, state) {
  const numbers = {}, N = data.N;
  const put = (name, value) => {
    if (Array.isArray(value)) value.forEach((entry, k) => put(`${name}.${k}`, entry));
    else numbers[name] = value;
  };
  const rows = data.rows.map((shown, r) => foldedRow(shown, state.logits[r], state.targets[r]));
  const row = rows[state.chosen], { a, y, soft } = row, target = argmax(y.slice(0, row.shown));
  const others = data.rows[state.chosen].a.map((_, k) => k).filter((k) => k !== target);
  const rival = others.length ? others.reduce((best, k) => (a[k] > a[best] ? k : best)) : target;
  put("N", N); put("C", data.C); put("row", data.rows[state.chosen].index);
  put("kappa", state.shift); put("eta", state.step); put("x", state.margin); put("keep", state.keep);
  put("eps", state.smoothing);
  put("rest.count", data.C - row.shown); put("rows.hidden", data.hidden ? data.hidden.count : 0);
  rows.forEach((each, r) => { put(`A.${r}`, each.a); put(`Y.${r}`, each.y); });
  put("t", target); put("rival", rival);
  putSoftmax(put, row, state.shift, target, rival);
  putLosses(put, data, rows, state.chosen);
  const grad = gradient(soft, y);
  putChain(put, data.nudge, row, grad, target, rival);
  putChecks(put, data, row, grad, target, rival);
  putStep(put, data, rows, state);
  putSure(put, state.margin, state.smoothing);
  putSoft(put, data, row, state, target);
  return numbers;
}

function putSoftmax(put, { a, y, soft }, shift, target, rival) {
  const size = Math.max(largest(a), 1e-9), naive = a.map((x) => Math.exp(x + shift)), total = sum(naive);
  put("a", a); put("y", y); put("size.a", a.map((x) => x / size)); put("m", soft.m);
  put("shifted", a.map((x) => x - soft.m)); put("exp", soft.exps); put("p", soft.p);
  put("big", a.map((x) => x + shift)); put("naive.exp", naive); put("naive.p", naive.map((e) => e / total));
  put("safe.p", softmaxRow(a.map((x) => x + shift)).p); put("naive.sum", total);
  put("sum", soft.total); put("lse", soft.lse); put("sum.y", sum(y)); put("sum.p", sum(soft.p));
  put("a.t", a[target]); put("p.t", soft.p[target]); put("p.rival", soft.p[rival]);
  put("not.p.t", soft.notP[target]); put("shift.sign", 0);
}

function putLosses(put, data, rows, chosen) {
  const losses = rows.map((row) => row.loss), hidden = data.hidden ? data.hidden.losses[0] : 0;
  put("loss", losses); put("loss", losses[chosen]); put("loss.hidden", hidden);
  put("loss.sum", sum(losses) + hidden); put("loss.mean", (sum(losses) + hidden) / data.N);
}

function putChain(put, h, { a, y, soft }, grad, target, rival) {
  const { p, notP } = soft;
  const byP = y.map((share, k) => (share === 0 ? 0 : -share / p[k]));
  const finite = byP.filter(Number.isFinite), size = largest([...finite, 0]) || 1;
  put("dp", byP); put("dp.t", byP[target]);
  put("size.dp", byP.map((x) => Math.max(-1, Math.min(1, x / size))));
  put("dp.check", y.map((share, k) => {
    const step = h * p[k];
    return share === 0 ? 0 : (-share * Math.log(p[k] + step) + share * Math.log(p[k] - step)) / (2 * step);
  }));
  const J = p.map((prob, i) => p.map((other, j) => (i === j ? prob * notP[i] : -prob * other)));
  const ups = a.map((_, k) => [softmaxRow(nudged(a, k, h)), softmaxRow(nudged(a, k, -h))]);
  const check = p.map((_, i) => ups.map(([up, down]) => (up.p[i] - down.p[i]) / (2 * h)));
  put("J", J); put("J.check", check); put("J.size", largest(J.flat()) || 1);
  put("J.error", largest(J.flat().map((x, n) => x - check.flat()[n])));
  put("J.own", J[target][target]); put("J.other", J[rival][target]);
  put("J.sum", J.map((_, j) => sum(J.map((line) => line[j]))));
  put("dlog", p.map((prob, i) => (i === target ? notP[i] : -prob)));
  put("dlog.check", ups.map(([up, down]) => (down.nll[target] - up.nll[target]) / (2 * h)));
  put("own", y.map((share, k) => -share * notP[k]));
  put("others", p.map((prob, k) => prob * (sum(y) - y[k])));
  const terms = J.map((line, k) => line.map((slope) => byP[k] * slope));
  put("term", terms); put("long", J.map((_, j) => sum(terms.map((line) => line[j]))));
  put("grad", grad); put("grad.sum", sum(grad)); put("grad.t", grad[target]); put("grad.rival", grad[rival]);
}

function putChecks(put, data, { a, y }, grad, target) {
  const loss = (at) => foldedLoss(at, y);
  put("grad.check", differences(loss, a, data.nudge));
  data.nudges.forEach((h, n) => {
    const quotients = differences(loss, a, h);
    put(`nudge.quotient.${n}`, quotients[target]);
    put(`nudge.error.${n}`, largest(quotients.map((q, k) => q - grad[k])));
  });
  put("nudge.up", loss(nudged(a, target, data.nudges[0])));
  put("nudge.down", loss(nudged(a, target, -data.nudges[0])));
}

function putStep(put, data, rows, state) {
  const N = data.N, eta = state.step;
  let before = 0, after = 0, squared = 0;
  if (data.hidden) {
    before = data.hidden.losses[0];
    after = hiddenLosses(data.hidden, eta);
    squared = data.hidden.grad_squared;
  }
  rows.forEach((row, r) => {
    const { a, y, soft, rest } = row, target = argmax(y.slice(0, row.shown));
    const G = gradient(soft, y).map((g) => g / N);
    const moved = a.slice(0, row.shown).map((x, k) => x - eta * G[k]);
    const later = rest && { ...rest, ...restAfter(rest, soft, y, eta / N) };
    const softLater = softmaxRow(later ? [...moved, later.lse] : moved);
    before += row.loss;
    after += rowLoss(softLater, y, later, row.shown);
    squared += sum(G.slice(0, row.shown).map((g) => g * g)) + (later ? later.grad_squared / (N * N) : 0);
    put(`G.${r}`, G); put(`pt.${r}`, soft.p[target]); put(`pt.after.${r}`, softLater.p[target]);
    if (r === state.chosen) { put("Grow", G); put("movedrow", moved); }
  });
  const { a, y } = rows[state.chosen];
  put("G.check", differences((at) => foldedLoss(at, y) / N, a, data.nudge));
  put("G.squared", squared); put("step.before", before / N); put("step.after", after / N);
  put("step.predicted", before / N - eta * squared); put("step.sign", (after - before) / N);
}

function putSure(put, margin, smoothing) {
  for (const [bits, round] of [["64", (x) => x], ["32", Math.fround]]) {
    const x = round(margin), R = 2 * Math.exp(-Math.abs(x));
    const small = round(Math.exp(-x)), total = round(round(1 + small) + small), p = round(1 / total);
    put(`sure.loss.${bits}`, Math.log1p(R)); put(`sure.grad.${bits}`, -R / (1 + R));
    put(`sure.naive.loss.${bits}`, -round(Math.log(p)) + 0); put(`sure.naive.grad.${bits}`, round(p - 1));
  }
  const R = 2 * Math.exp(-margin);
  put("sure.R", R); put("sure.smoothed", -R / (1 + R) + (2 * smoothing) / 3);
}

function putSoft(put, data, row, state, target) {
  const { a, y, soft, rest } = row, eps = state.smoothing, C = data.C;
  const shared = sharedTarget(argmax(y.slice(0, row.shown)), row.shown, state.keep);
  if (rest) shared.push(0);
  const grad = gradient(soft, shared), loss = weighted(shared, soft.nll);
  put("soft.y", shared); put("soft.grad", grad); put("soft.loss", loss); put("half.loss", loss / 2);
  put("half.grad", grad.map((g) => g / 2));
  const count = (k) => (k < row.shown ? 1 : rest.count);
  const q = y.map((share, k) => (1 - eps) * share + (eps * count(k)) / C);
  const nll = sum(soft.nll.slice(0, row.shown)) + (rest ? rest.count * soft.lse - rest.sum_logits : 0);
  put("q", q); put("smooth.grad", gradient(soft, q)); put("smooth.keep", 1 - eps);
  put("smooth.even", nll / C); put("smooth.loss", (1 - eps) * row.loss + (eps * nll) / C);
  put("smooth.check", differences((at) => foldedLoss(at, q), a, data.nudge));
  put("soft.check", differences((at) => foldedLoss(at, shared), a, data.nudge));
}

// Which of the alternative sentences hold (flags_of in markup.py).
function allFlags(numbers, slots) {
  const all = (name) => Array.from({ length: slots }, (_, k) => numbers[`${name}.${k}`]);
  const y = all("y"), onehot = Math.max(...y) === 1 && sum(y) === 1;
  const right = numbers["a.t"] === Math.max(...all("a")), breaks = all("naive.p").some(Number.isNaN);
  return {
    onehot, soft: !onehot, right, wrong: !right, breaks, holds: !breaks,
    longfails: all("long").some(Number.isNaN), toosure: numbers["sure.smoothed"] > 0,
  };
}
