// Usage: node check.js dashboard.json...  Prints what is wrong with each.
import { readFileSync } from "node:fs";
import Ajv from "ajv";
import { createGenerator } from "ts-json-schema-generator";

const schema = createGenerator({
  path: new URL("model.ts", import.meta.url).pathname,
  type: "Dashboard",
  skipTypeCheck: true,
  additionalProperties: false,
}).createSchema("Dashboard");
const validate = new Ajv({ allErrors: true, strict: false, discriminator: false }).compile(schema);

for (const file of process.argv.slice(2)) {
  if (validate(JSON.parse(readFileSync(file, "utf8")))) continue;
  process.exitCode = 1;
  for (const e of validate.errors) {
    console.error(`${file} ${e.instancePath}: ${e.message} ${JSON.stringify(e.params)}`);
  }
}
