import { describe, expect, it } from 'vitest';
import { hash, motif } from './product-art.tsx';

describe('motif', () => {
  it.each([
    ['Desk lamp with daylight sensor', 'Lamp'],
    ['Standing desk, oak', 'desk'],
    ['Laptop stand, aluminum', 'laptop'],
    ['Noise-cancelling headphones', 'headphone'],
    ['Mechanical keyboard, tactile switches', 'keyboard'],
    ['27-inch 4K monitor', 'display'],
    ['Espresso cups', 'mug'],
    ['Light for plants', 'lamp'],
  ])('shows %s as a %s', (name, thing) => {
    expect(motif(name)).toBeDefined();
    expect(motif(name)).toBe(motif(thing));
  });

  it.each(['', 'Gift card', 'Cable', '???'])('knows none for “%s”', (name) => {
    expect(motif(name)).toBeUndefined();
  });
});

it('gives an id the same look forever', () => {
  expect(hash('550e8400-e29b-41d4-a716-446655440001')).toBe(hash('550e8400-e29b-41d4-a716-446655440001'));
  expect(hash('a')).not.toBe(hash('b'));
});
