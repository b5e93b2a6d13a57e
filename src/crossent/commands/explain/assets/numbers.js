// How a number is written: the same as numbers.py, where the styles are listed.
const MINUS = "−", TOO_SMALL = 0.0005, TOO_LARGE = 1e4;
const superscript = (n) => String(n).replace(/./g, (c) => "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"["0123456789-".indexOf(c)]);

function powerOfTen(size, decimals) {
  const [mantissa, exponent] = size.toExponential(decimals).split("e");
  return `${mantissa}×10${superscript(Number(exponent))}`;
}

function writeNumber(value, style = "3") {
  if (Number.isNaN(value)) return "nan";
  const size = Math.abs(value), sign = value < 0 ? MINUS : "";
  if (size === Infinity) return sign + "inf";
  if (style === "i") return sign + Math.round(size).toLocaleString("en-US");
  if (style === "s") {
    const digits = size.toFixed(3);
    return Number(digits) === 0 ? digits : sign + digits;
  }
  if (size === 0) return style === "a" ? "0.0" : "0";
  if (style === "e" || style === "1") return sign + powerOfTen(size, style === "e" ? 2 : 0);
  if (size < TOO_SMALL || size >= TOO_LARGE) return sign + powerOfTen(size, 2);
  let digits = size.toFixed(style === "5" ? 5 : 3);
  if (style === "a" || style === "g") {
    digits = digits.replace(/\.?0+$/, "");
    if (style === "a" && !digits.includes(".")) digits += ".0";
  }
  return sign + digits;
}
