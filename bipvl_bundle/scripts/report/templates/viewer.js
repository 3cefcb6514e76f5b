"use strict";
(() => {
  const data = JSON.parse(document.getElementById("page-data").textContent);
  const element = (id) => document.getElementById(id);
  const say = (text) => { element("state").textContent = text; };
  const shownClasses = data.classes.map(() => true);
  const shownLayers = {};
  let viewer = null;
  let current = null;

  // A page from a disk may load scripts, and no other files.
  const load = (file) => new Promise((done, failed) => {
    const script = document.createElement("script");
    script.src = file;
    script.onload = done;
    script.onerror = () => failed(new Error(`'${file}' is not beside this page: copy the folder '${data.files}' too.`));
    document.head.append(script);
  });

  const checkbox = (parent, text, colour, changed, on) => {
    const label = document.createElement("label");
    const box = document.createElement("input");
    box.type = "checkbox";
    box.checked = on;
    box.addEventListener("change", () => changed(box.checked));
    label.append(box, " ");
    if (colour) {
      const swatch = document.createElement("span");
      swatch.className = "swatch";
      swatch.style.background = colour;
      label.append(swatch, " ");
    }
    label.append(text);
    parent.append(label);
    return box;
  };

  const palette = () => {
    const part = (from) => data.classes.map(({ colour }) => parseInt(colour.slice(from, from + 2), 16));
    return {
      R: [0, ...part(1)], G: [0, ...part(3)], B: [0, ...part(5)],
      A: [0, ...shownClasses.map((shown) => (shown ? 255 : 0))],
      I: [0, ...data.classes.map((_, i) => i + 1)],
      labels: ["", ...data.classes.map(({ name }) => name)],
    };
  };

  const draw = () => {
    if (!current) return;
    current.layers.forEach((name, i) => {
      viewer.volumes[i + 1].setColormapLabel(palette());
      viewer.volumes[i + 1].opacity = shownLayers[name] ? Number(element("opacity").value) : 0;
    });
    viewer.updateGLVolume();
  };

  const planes = ["multi", "axial", "coronal", "sagittal", "render"];
  const look = () => {
    const kinds = {
      multi: viewer.sliceTypeMultiplanar, axial: viewer.sliceTypeAxial, coronal: viewer.sliceTypeCoronal,
      sagittal: viewer.sliceTypeSagittal, render: viewer.sliceTypeRender,
    };
    viewer.setSliceType(kinds[element("plane").value]);
  };

  const layerBoxes = () => {
    element("layers").replaceChildren();
    current.layers.forEach((name, i) => {
      shownLayers[name] ??= i === 1;
      const box = checkbox(element("layers"), name, null, (on) => { shownLayers[name] = on; draw(); }, shownLayers[name]);
      box.dataset.layer = i === 0 ? "reference" : "prediction";
    });
  };

  const show = async (name) => {
    const found = data.cases.find((one) => one.case === name);
    say(`Loading ${name} ...`);
    await load(found.file);
    const content = window.reportVolumes[name];
    const volumes = await Promise.all(["image", ...found.layers].map((layer) =>
      niivue.NVImage.loadFromBase64({
        base64: content[layer], name: "volume.nii.gz", cal_min: 0, cal_max: 255,
      })));
    while (viewer.volumes.length) viewer.removeVolumeByIndex(0);
    volumes.forEach((volume) => viewer.addVolume(volume));
    current = found;
    element("case").value = name;
    layerBoxes();
    look();
    draw();
    say(`${name}: ${found.layers.join(", ")}${found.step > 1 ? `; every ${found.step}. voxel along each axis` : ""}.`);
    element("view").dataset.case = name;
  };

  const failed = (error) => { say(`The viewer shows nothing: ${error.message}`); };

  const toggle = (kind) => {
    const boxes = [...element("layers").querySelectorAll(`[data-layer=${kind}]`)];
    const on = !boxes.some((box) => box.checked);
    boxes.forEach((box) => { box.checked = on; box.dispatchEvent(new Event("change")); });
  };

  const keys = (event) => {
    if (event.key === "r") toggle("reference");
    else if (event.key === "p") toggle("prediction");
    else if (planes[Number(event.key) - 1]) { element("plane").value = planes[Number(event.key) - 1]; look(); }
    else return;
    event.preventDefault();
    event.stopPropagation();
  };

  const start = async () => {
    await load(`${data.files}/niivue.umd.js`);
    viewer = new niivue.Niivue({
      show3Dcrosshair: true, isRadiologicalConvention: true, backColor: [0, 0, 0, 1], loadingText: "",
      multiplanarShowRender: niivue.SHOW_RENDER.ALWAYS,
    });
    await viewer.attachToCanvas(element("view"));
    data.cases.forEach((one) => element("case").append(new Option(one.title, one.case)));
    data.classes.forEach(({ name, colour }, i) =>
      checkbox(element("classes"), name, colour, (on) => { shownClasses[i] = on; draw(); }, true));
    element("case").addEventListener("change", (event) => show(event.target.value).catch(failed));
    element("plane").addEventListener("change", look);
    element("opacity").addEventListener("input", draw);
    element("view").addEventListener("keydown", keys, true);
    element("controls").hidden = false;
    window.reportViewer = viewer;
    await show(data.cases[0].case);
  };

  document.querySelectorAll("a[data-case]").forEach((link) =>
    link.addEventListener("click", () => { if (viewer) show(link.dataset.case).catch(failed); }));
  start().catch(failed);
})();
