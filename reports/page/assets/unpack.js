// Bulk data: base64 of zlib's deflate in inert script elements, see packing.py.
async function unpacked(name) {
  const element = document.getElementById(`packed-${name}`);
  if (!element) return null;
  const bytes = Uint8Array.from(atob(element.textContent), (letter) => letter.charCodeAt(0));
  element.remove();
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).text();
}

async function unpackedJson(name) {
  const text = await unpacked(name);
  return text === null ? null : JSON.parse(text);
}

async function startPlotly() {
  const source = await unpacked("plotly");
  if (source === null) return false;
  const script = document.createElement("script");
  script.textContent = source;
  document.head.append(script);
  return typeof Plotly === "object";
}
