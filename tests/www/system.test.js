// www/system.js: the calculations.

import assert from "node:assert/strict";
import { test } from "node:test";

import { wellbeing } from "../../www/system.js";

const check = (actual, expected) => assert.deepEqual(actual, expected);

test("the state is a sentence", () => {
  const health = (more, clock) => ({
    status: "healthy", reason: null, ...more,
    details: { clock },
  });
  check(wellbeing(health()), "All is well.");
  check(wellbeing(health({ status: "degraded", reason: "collection is stopped" })), "Collection is stopped.");
  assert.match(wellbeing(health({}, { believed: false })), /clock is not right/);
});
