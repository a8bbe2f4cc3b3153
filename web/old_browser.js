/* A message in browsers that are too old for the page; written so that they can read it. */
(function () {
  var missing = [];
  if (!("noModule" in document.createElement("script"))) missing.push("modules");
  if (typeof WebAssembly === "undefined") missing.push("WebAssembly");
  if (typeof OffscreenCanvas === "undefined") missing.push("OffscreenCanvas");
  if (typeof createImageBitmap === "undefined") missing.push("createImageBitmap");
  if (!missing.length) return;
  document.documentElement.setAttribute("data-old", "");
  var status = document.getElementById("status"), progress = document.getElementById("progress");
  if (!status || !progress) return;
  status.className = "failure";
  status.textContent = "This browser is too old: it lacks " + missing.join(", ")
    + ". Use a current Chrome, Edge, Firefox or Safari.";
  progress.hidden = true;
})();
