// Usage: node asyncapi.js asyncapi.yaml  Prints what AsyncAPI's own parser says against it, and each schema from which a
// generator would make a type without a name.
import { fromFile, Parser } from '@asyncapi/parser';

const { document, diagnostics } = await fromFile(new Parser(), process.argv[2]).parse();
// Severity 0 is an error and 1 a warning; what is below recommends newer versions.
const problems = diagnostics.filter((d) => d.severity <= 1).map((d) => `${d.path.join('.')}: ${d.message}`);
for (const schema of document?.allSchemas() ?? []) {
  const becomesType = schema.type() === 'object' || schema.enum() || schema.allOf() || schema.oneOf();
  if (becomesType && schema.id().startsWith('<anonymous')) problems.push(`without a name: ${JSON.stringify(schema.json()).slice(0, 200)}`);
}
if (problems.length > 0) {
  console.error(problems.join('\n'));
  process.exit(1);
}
