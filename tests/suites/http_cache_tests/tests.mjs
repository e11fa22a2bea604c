// Prints the tests that http-cache-tests runs against a proxy, as JSON: the kind of each by its id.
import tests from 'http-cache-tests/tests/index.mjs'
import surrogate from 'http-cache-tests/tests/surrogate-control.mjs'

const kinds = {}
for (const suite of [...tests, surrogate]) {
  for (const test of suite.tests) {
    if (!test.browser_only) kinds[test.id] = test.kind || 'required'
  }
}
console.log(JSON.stringify(kinds))
