import { persisted, usePersisted } from '../persisted.ts';
import { parseAttempt, parseBasket, reduce, type Action, type Basket } from './basket.ts';

const basket = persisted('orderflow.basket', parseBasket);

/** The last try to place an order, until its answer is known. */
export const lastAttempt = persisted('orderflow.attempt', parseAttempt);

export function useBasket(): Basket {
  return usePersisted(basket);
}

export function changeBasket(action: Action): void {
  basket.set(reduce(basket.get(), action));
}
