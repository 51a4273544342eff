"use strict";
(function () {
  var root = document.documentElement;

  function dark() {
    var chosen = root.getAttribute("data-theme");
    return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }

  var toggle = document.getElementById("theme");
  function name() { toggle.textContent = dark() ? "Light" : "Dark"; toggle.setAttribute("aria-label", "Switch to " + toggle.textContent.toLowerCase() + " colours"); }
  toggle.hidden = false;
  toggle.addEventListener("click", function () {
    root.setAttribute("data-theme", dark() ? "light" : "dark");
    name();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", name);
  name();

  function key(row, index) {
    var cell = row.cells[index];
    if (!cell) { return null; }
    if (cell.hasAttribute("data-v")) {
      var value = cell.getAttribute("data-v");
      return value === "" ? null : Number(value);
    }
    var text = cell.textContent.trim();
    if (!cell.classList.contains("num")) { return text; }
    var number = parseFloat(text);
    return isNaN(number) ? null : number;
  }

  function compare(a, b) {
    if (typeof a === "number" && typeof b === "number") { return a - b; }
    return String(a).localeCompare(String(b), undefined, { numeric: true });
  }

  function sort(table, head, index) {
    var numeric = head.classList.contains("num") && head.textContent.trim() !== "rank";
    var before = head.getAttribute("aria-sort");
    var order = before ? (before === "ascending" ? "descending" : "ascending") : (numeric ? "descending" : "ascending");
    var sign = order === "ascending" ? 1 : -1;
    table.querySelectorAll("thead th").forEach(function (other) { other.removeAttribute("aria-sort"); });
    head.setAttribute("aria-sort", order);
    var rows = Array.prototype.map.call(table.tBodies[0].rows, function (row, place) {
      return { row: row, key: key(row, index), place: place };
    });
    rows.sort(function (a, b) {
      if (a.key === null || b.key === null) { return (a.key === null) - (b.key === null) || a.place - b.place; }
      return sign * compare(a.key, b.key) || a.place - b.place;
    });
    rows.forEach(function (one) { table.tBodies[0].appendChild(one.row); });
  }

  document.querySelectorAll("table.sortable").forEach(function (table) {
    table.querySelectorAll("thead th").forEach(function (head, index) {
      var button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      button.title = "Sort by " + head.textContent;
      head.textContent = "";
      head.appendChild(button);
      button.addEventListener("click", function () { sort(table, head, index); });
    });
  });

  document.querySelectorAll("table.filterable").forEach(function (table) {
    if (table.tBodies[0].rows.length < 12) { return; }
    var input = document.createElement("input");
    input.type = "search";
    input.className = "filter";
    input.placeholder = "Filter rows, for example pgd";
    input.setAttribute("aria-label", "Filter rows");
    table.parentNode.parentNode.insertBefore(input, table.parentNode);
    input.addEventListener("input", function () {
      var words = input.value.toLowerCase().split(/\s+/);
      Array.prototype.forEach.call(table.tBodies[0].rows, function (row) {
        var text = row.textContent.toLowerCase();
        row.hidden = !words.every(function (word) { return text.indexOf(word) >= 0; });
      });
    });
  });

  document.querySelectorAll(".chart").forEach(function (chart) {
    var stops = JSON.parse(chart.getAttribute("data-stops"));
    var plot = chart.querySelector(".plot"), drawing = plot.querySelector("svg");
    var cursor = drawing.querySelector(".cursor"), tip = plot.querySelector(".tip");
    var width = drawing.viewBox.baseVal.width, current = -1;
    var names = Array.prototype.map.call(chart.querySelectorAll(".legend code"), function (one) { return one.textContent; });
    var lines = Array.prototype.map.call(drawing.querySelectorAll(".line"), function (one) { return one.getAttribute("class"); });

    function hide() { current = -1; tip.hidden = true; cursor.setAttribute("visibility", "hidden"); }

    function element(parent, tag, className, text) {
      var one = document.createElement(tag);
      if (className) { one.className = className; }
      if (text) { one.textContent = text; }
      parent.appendChild(one);
      return one;
    }

    function show(index) {
      current = index;
      var x = stops[index][0], said = stops[index][2];
      cursor.setAttribute("x1", x); cursor.setAttribute("x2", x); cursor.setAttribute("visibility", "visible");
      tip.textContent = "";
      element(tip, "b", "", stops[index][1]);
      said.forEach(function (text, line) {
        if (!text) { return; }
        var row = element(tip, "div", lines[line]);
        element(row, "span", "dot");
        if (names.length > 1) { element(row, "span", "name", names[line]); }
        element(row, "span", "read", text);
      });
      tip.hidden = false;
      var place = x / width * plot.clientWidth;
      var left = place + 12 + tip.offsetWidth > plot.clientWidth ? place - 12 - tip.offsetWidth : place + 12;
      tip.style.left = Math.max(0, Math.min(left, plot.clientWidth - tip.offsetWidth)) + "px";
    }

    function nearest(event) {
      var box = drawing.getBoundingClientRect(), x = (event.clientX - box.left) / box.width * width;
      var best = 0;
      stops.forEach(function (stop, index) { if (Math.abs(stop[0] - x) < Math.abs(stops[best][0] - x)) { best = index; } });
      show(best);
    }

    drawing.addEventListener("pointermove", nearest);
    drawing.addEventListener("pointerdown", nearest);
    drawing.addEventListener("pointerleave", hide);
    chart.addEventListener("blur", hide);
    chart.addEventListener("keydown", function (event) {
      if (event.key === "Escape") { hide(); return; }
      var step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) { return; }
      event.preventDefault();
      show(current < 0 ? (step > 0 ? 0 : stops.length - 1) : Math.max(0, Math.min(stops.length - 1, current + step)));
    });
  });
})();
