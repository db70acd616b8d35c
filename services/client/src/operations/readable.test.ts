import { describe, expect, it } from 'vitest';
import { hexDump, indentJson, readableBody } from './readable.ts';

describe('JSON on lines', () => {
  it('keeps every digit, escape and double name', () => {
    const json = '{"n":12345678901234567890.10,"n":[1,{"a":"x, \\"y\\": {z}"}],"e":{},"l":[ ]}';
    expect(indentJson(json)).toBe(
      ['{', '  "n": 12345678901234567890.10,', '  "n": [', '    1,', '    {', '      "a": "x, \\"y\\": {z}"', '    }', '  ],', '  "e": {},', '  "l": []', '}'].join('\n'),
    );
  });

  it.each([['1'], ['"text"'], ['null'], ['[]'], ['{}'], ['-1.5e+9']])('leaves %s as it is', (json) => {
    expect(indentJson(` ${json}\n`)).toBe(json);
  });

  it('says the same as what came', () => {
    const json = '[{"a":[[],[1,[2]],"[{"]},{"b":{"c":{}}}]';
    expect(JSON.parse(indentJson(json))).toEqual(JSON.parse(json));
  });
});

it('shows bytes in lines of sixteen', () => {
  expect(hexDump(btoa('\u0000\u00ffORDERFLOW is here'))).toBe(
    '000000  00 ff 4f 52 44 45 52 46 4c 4f 57 20 69 73 20 68  ··ORDERFLOW is h\n000010  65 72 65                                         ere',
  );
});

it('says what kind of body it is, and whether it is all of it', () => {
  expect(readableBody({ body: { json: '1', truncated: false }, bodyBytes: 1 })).toEqual({ kind: 'JSON', text: '1', cut: false });
  expect(readableBody({ body: { text: 'x', truncated: true }, bodyBytes: 70_000 })).toEqual({ kind: 'Text', text: 'x', cut: true });
  expect(readableBody({ body: { text: '', truncated: false }, bodyBytes: 0 }).kind).toBe('Empty');
  expect(readableBody({ body: { base64: btoa('a'.repeat(2000)), truncated: false }, bodyBytes: 2000 })).toMatchObject({ kind: 'Binary', cut: true });
});
