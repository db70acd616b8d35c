import { useState } from 'react';
import { count } from '../format.ts';
import './stock-level.css';

const few = 10;

/** How many can be ordered now. A change lights up for a moment. */
export function StockLevel({ stock }: { stock: number }) {
  const [first] = useState(stock);
  const level = stock === 0 ? 'none' : stock <= few ? 'few' : 'plenty';
  return (
    <p className={`stock-level ${level}`}>
      <span key={stock} className={stock === first ? 'number' : 'number changed'}>
        {stock === 0 ? 'Sold out' : stock <= few ? `Only ${count(stock)} left` : `${count(stock)} in stock`}
      </span>
    </p>
  );
}
