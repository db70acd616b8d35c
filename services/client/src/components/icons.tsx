import type { ReactNode } from 'react';

// Line icons on a grid of 24, drawn for this client. Text beside them says what they mean.
const shapes = {
  bag: <path d="M6.5 8h11l1 12h-13zM9 10.5V7a3 3 0 0 1 6 0v3.5" />,
  shop: <path d="M4 10v10h16V10M3 7l2-4h14l2 4a3 3 0 0 1-6 0 3 3 0 0 1-6 0 3 3 0 0 1-6 0zM10 20v-5h4v5" />,
  orders: <path d="M6 3h12v18l-3-2-3 2-3-2-3 2zM9.5 8h5M9.5 12h5" />,
  stock: <path d="m12 3 8 4.5v9L12 21l-8-4.5v-9zM4 7.5l8 4.5 8-4.5M12 12v9M8 5.25l8 4.5" />,
  letters: <path d="M3 6h18v13H3zM3 7l9 7 9-7" />,
  again: <path d="M20 12a8 8 0 1 1-2.5-5.8L20 8.5M20 4v4.5h-4.5" />,
  pause: <path d="M8.5 6v12M15.5 6v12" />,
  download: <path d="M12 4v11m-5-5 5 5 5-5M5 20h14" />,
  plus: <path d="M12 5v14M5 12h14" />,
  minus: <path d="M5 12h14" />,
  check: <path d="m5 12.5 4.5 4.5L19 7.5" />,
  cross: <path d="M6 6l12 12M18 6 6 18" />,
  clock: <path d="M12 7v5l3 2M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18z" />,
  search: <path d="m20 20-4.5-4.5M10.5 4a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13z" />,
  sun: <path d="M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.4 1.4M17.6 17.6 19 19M5 19l1.4-1.4M17.6 6.4 19 5" />,
  moon: <path d="M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5z" />,
  half: <path d="M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18zM12 3v18M12 8h7M12 12h9M12 16h7" />,
  person: <path d="M12 4a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM4.5 20.5c1-4 4-6 7.5-6s6.5 2 7.5 6" />,
  warning: <path d="M12 4 2.5 20h19zM12 10v4.5M12 17.3v.2" />,
  unlocked: <path d="M5 11h14v9H5zM8 11V7.5a4 4 0 0 1 7.7-1.5" />,
  offline: <path d="M3 3l18 18M5 12.5a10 10 0 0 1 4-2.4M2 9a15 15 0 0 1 4.5-3M19 12.5a10 10 0 0 0-5-2.8M22 9a15 15 0 0 0-11-4M8.5 16a5 5 0 0 1 6.5-.3M12 19.8v.2" />,
  arrow: <path d="M5 12h14m-6-6 6 6-6 6" />,
  external: <path d="M13 4h7v7M20 4l-9 9M17 14v6H4V7h6" />,
  copy: <path d="M8 8h12v12H8zM16 8V4H4v12h4" />,
  pencil: <path d="M4 20v-4L16 4l4 4L8 20zM13.5 6.5l4 4" />,
  trash: <path d="M4 7h16M9 7V4h6v3M6.5 7l1 13h9l1-13" />,
} satisfies Record<string, ReactNode>; // prettier-ignore

export type IconName = keyof typeof shapes;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg
      className="icon"
      viewBox="0 0 24 24"
      fill="none"
      stroke="currentColor"
      strokeWidth="1.75"
      strokeLinecap="round"
      strokeLinejoin="round"
      aria-hidden="true"
    >
      {shapes[name]}
    </svg>
  );
}
