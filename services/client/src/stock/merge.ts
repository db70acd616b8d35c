import type { Product } from '../api/products.ts';

/** What can be changed about a product. */
export interface Draft {
  name: string;
  priceCents: number;
}

export type Field = keyof Draft;

export const fields: readonly Field[] = ['name', 'priceCents'];

export interface Merge {
  /** The draft with the other's changes taken over where nobody disagrees. */
  draft: Draft;
  /** Fields that only the other has changed: they are in the draft now. */
  taken: Field[];
  /** Fields that both have changed, to different values: the draft keeps its own. */
  disputed: Field[];
}

/**
 * Brings a draft that began at base together with what the product has become
 * meanwhile, field by field.
 */
export function merge(base: Draft, theirs: Draft, draft: Draft): Merge {
  const result: Merge = { draft: { ...draft }, taken: [], disputed: [] };
  for (const field of fields) {
    if (theirs[field] === base[field] || theirs[field] === draft[field]) continue;
    if (draft[field] === base[field]) {
      result.draft = { ...result.draft, [field]: theirs[field] };
      result.taken.push(field);
    } else {
      result.disputed.push(field);
    }
  }
  return result;
}

export function draftOf({ name, priceCents }: Product): Draft {
  return { name, priceCents };
}
