// The pictures of a case: image, and over it the labels of the reference or of a model, or where the two differ.
"use strict";
(() => {
  const IMAGE_ONLY = -2, REFERENCE = -1;
  const ERRORS = [["missed", "#E69F00"], ["too much", "#56B4E9"], ["another structure", "#CC79A7"]];
  const element = (name, text, attributes = {}) => {
    const made = document.createElement(name);
    made.textContent = text;
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

  class Viewer {
    constructor(root) {
      this.root = root;
      this.colours = root.dataset.colours.split(" ");
      this.buttons = [...root.closest("section").querySelectorAll("button.choose")];
      this.queue = Promise.resolve();
      this.map = undefined;
      for (const button of this.buttons) button.addEventListener("click", () => this.choose(button, true));
      this.find("[name=errors]").addEventListener("change", () => this.draw());
      this.find("[name=opacity]").addEventListener("input", () => this.restyle());
      this.find("[name=planes]").addEventListener("change", () => this.restyle());
      for (const axis of "xyz") this.find(`[name=${axis}]`).addEventListener("input", () => this.moveToSliders());
      root.hidden = false;
      // The worst case of those with pictures, once a reader comes near it.
      const first = this.buttons.find((button) => this.read(button).image) ?? this.buttons[0];
      const near = new IntersectionObserver((entries) => {
        if (!entries.some((entry) => entry.isIntersecting)) return;
        near.disconnect();
        if (!this.data) this.choose(first, false);
      }, { rootMargin: "300px" });
      near.observe(root);
    }

    find(selector) { return this.root.querySelector(selector); }

    read(button) { return JSON.parse(document.getElementById(button.dataset.case).textContent); }

    // One after the other: a second press waits until the first case is there.
    run(work) {
      this.root.setAttribute("aria-busy", "true");
      this.queue = this.queue.then(work).catch((error) => this.fail(error)).then(() => this.root.removeAttribute("aria-busy"));
      return this.queue;
    }

    fail(error) {
      this.find(".shown").hidden = true;
      this.find(".notes").append(element("li", `No pictures: ${error.message ?? error}`));
    }

    choose(button, go) {
      for (const other of this.buttons) other.setAttribute("aria-pressed", String(other === button));
      return this.run(async () => {
        this.data = this.read(button);
        this.find(".title").textContent = `Case ${this.data.case}, ${this.data.task}`;
        this.find(".notes").replaceChildren(...this.data.notes.map((note) => element("li", note)));
        this.showScores();
        this.find(".shown").hidden = !this.data.image;
        if (go) {
          this.find(".title").focus({ preventScroll: true });
          this.root.scrollIntoView({ block: "start" });
        }
        if (this.data.image) await this.load();
      });
    }

    showScores() {
      const head = ["structure", ...this.data.models].map((name, i) => element("th", name, { scope: "col", class: i ? "number" : "" }));
      const thead = element("thead", ""), tbody = element("tbody", ""), row = element("tr", "");
      row.append(...head);
      thead.append(row);
      for (const [name, ...scores] of this.data.scores) {
        const line = element("tr", "");
        line.append(element("th", name, { scope: "row" }), ...scores.map((score) => element("td", score, { class: "number" })));
        tbody.append(line);
      }
      this.find(".structures").replaceChildren(element("caption", `${this.root.dataset.score} of this case`), thead, tbody);
      this.find(".structures").hidden = !this.data.scores.length;
    }

    async start() {
      const canvas = this.find("canvas");
      if (!document.createElement("canvas").getContext("webgl2")) {
        throw new Error("this browser offers no WebGL 2. Another browser, or graphics acceleration in its settings, may help.");
      }
      this.nv = new niivue.Niivue({
        isRadiologicalConvention: true, sagittalNoseLeft: true, multiplanarShowRender: niivue.SHOW_RENDER.NEVER,
        multiplanarLayout: niivue.MULTIPLANAR_TYPE.AUTO, dragAndDropEnabled: false, loadingText: "",
        fontMinPx: 20, fontColor: [1, 1, 1, 1],
        crosshairColor: [1, 1, 1, 0.7], crosshairWidth: 0.6, crosshairWidthUnit: "mm", isNearestInterpolation: true, logLevel: "error",
        scrollRequiresFocus: true,
      });
      this.nv.onLocationChange = (place) => this.say(place);
      await this.nv.attachToCanvas(canvas);
    }

    async load() {
      if (!this.nv) await this.start();
      while (this.nv.volumes.length) this.nv.removeVolume(this.nv.volumes[0]);
      const data = this.data;
      this.image = await niivue.NVImage.loadFromBase64({ base64: data.image, name: "image.nii.gz", cal_min: 0, cal_max: 255 });
      this.reference = await this.labels(data.reference);
      this.predictions = await Promise.all(data.predictions.map((base64) => (base64 ? this.labels(base64) : null)));
      this.nv.addVolume(this.image);
      const size = this.image.dimsRAS.slice(1, 4);
      ["x", "y", "z"].forEach((axis, i) => { this.find(`[name=${axis}]`).max = size[i] - 1; });
      this.showButtons();
      // What was looked at last, if this case has it; else the first model.
      const available = (map) => map < 0 || this.predictions[map];
      if (this.map === undefined || !available(this.map)) this.map = Math.max(this.predictions.findIndex(Boolean), REFERENCE);
      this.moveTo(data.focus);
      this.paint();
    }

    async labels(base64) {
      const volume = await niivue.NVImage.loadFromBase64({ base64, name: "labels.nii.gz", cal_min: 0, cal_max: 255 });
      return volume.img;
    }

    showButtons() {
      const choices = [["none", IMAGE_ONLY], ["reference", REFERENCE], ...this.data.models.map((model, i) => [model, i])];
      const legend = this.find(".maps legend");
      this.find(".maps").replaceChildren(legend, ...choices.map(([name, map]) => {
        const button = element("button", name, { type: "button", "data-map": map });
        if (map >= 0 && !this.predictions[map]) {
          button.disabled = true;
          button.title = "no prediction of this case";
        }
        button.addEventListener("click", () => { this.map = map; this.draw(); });
        return button;
      }));
    }

    draw() { return this.run(async () => { if (this.data?.image) await this.paint(); }); }

    async paint() {
      const errors = this.find("[name=errors]");
      errors.disabled = this.map < 0;
      for (const button of this.find(".maps").querySelectorAll("button")) {
        button.setAttribute("aria-pressed", String(Number(button.dataset.map) === this.map));
      }
      while (this.nv.volumes.length > 1) this.nv.removeVolume(this.nv.volumes[1]);
      const onlyErrors = this.map >= 0 && errors.checked;
      const names = onlyErrors ? ERRORS.map(([name]) => name) : this.data.labels;
      const colours = onlyErrors ? ERRORS.map(([, colour]) => colour) : names.map((_, i) => this.colours[i % this.colours.length]);
      if (this.map !== IMAGE_ONLY) {
        const overlay = await niivue.NVImage.loadFromBase64({ base64: this.data.reference, name: "labels.nii.gz" });
        overlay.img = onlyErrors ? this.differences(this.predictions[this.map]) : this.values(this.map).slice();
        const codes = [0, ...names.map((_, i) => i + 1)], mixed = ["#000000", ...colours].map(rgb);
        overlay.setColormapLabel({
          R: mixed.map((c) => c[0]), G: mixed.map((c) => c[1]), B: mixed.map((c) => c[2]), A: codes.map((c) => (c ? 255 : 0)),
          I: codes, labels: ["", ...names],
        });
        this.nv.addVolume(overlay);
      }
      this.find(".legend").replaceChildren(...(this.map === IMAGE_ONLY ? [] : names.map((name, i) => {
        const item = element("li", name);
        item.style.setProperty("--colour", colours[i]);
        return item;
      })));
      this.restyle();
    }

    values(map) { return map === REFERENCE ? this.reference : this.predictions[map]; }

    // 1 where the model has nothing and should, 2 where it has something and should not, 3 where it has another structure.
    differences(prediction) {
      return prediction.map((found, i) => {
        const wanted = this.reference[i];
        return found === wanted ? 0 : !found ? 1 : !wanted ? 2 : 3;
      });
    }

    restyle() {
      if (!this.nv || !this.data?.image) return;
      const planes = { all: "MULTIPLANAR", axial: "AXIAL", coronal: "CORONAL", sagittal: "SAGITTAL" };
      this.nv.setSliceType(niivue.SLICE_TYPE[planes[this.find("[name=planes]").value]]);
      if (this.nv.volumes.length > 1) this.nv.setOpacity(1, Number(this.find("[name=opacity]").value) / 100);
      this.nv.updateGLVolume();
      this.nv.createOnLocationChange();
    }

    moveTo(voxel) {
      this.nv.scene.crosshairPos = this.nv.vox2frac(voxel);
      this.nv.drawScene();
      this.nv.createOnLocationChange();
    }

    moveToSliders() {
      if (this.nv && this.data?.image) this.moveTo(["x", "y", "z"].map((axis) => Number(this.find(`[name=${axis}]`).value)));
    }

    // What lies under the cross, in words: colours alone do not say it.
    say(place) {
      if (!this.reference) return;
      const voxel = [...place.vox].slice(0, 3).map(Math.round), size = this.image.dimsRAS.slice(1, 4);
      if (voxel.some((at, i) => at < 0 || at >= size[i])) return;
      ["x", "y", "z"].forEach((axis, i) => { this.find(`[name=${axis}]`).value = voxel[i]; });
      const at = voxel[0] + size[0] * (voxel[1] + size[1] * voxel[2]);
      const called = (values) => (values[at] ? this.data.labels[values[at] - 1] : "nothing");
      const models = this.data.models.flatMap((name, i) => (this.predictions[i] ? [`${name}: ${called(this.predictions[i])}`] : []));
      this.find(".place").textContent = ["Under the cross: reference: " + called(this.reference), ...models].join("; ");
    }
  }

  // Kept where a test, or a curious reader, finds them.
  window.swinsslViewers = [...document.querySelectorAll("[data-viewer]")].map((root) => new Viewer(root));
})();
