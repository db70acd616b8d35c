import { useEffect, useRef, type ReactNode } from 'react';

let shown = false; // a page, since the client was loaded
let back = false; // or forward: the browser scrolls to where the page was left
addEventListener('popstate', () => {
  back = true;
});
addEventListener('pushState', () => {
  back = false; // this is how wouter announces its navigation
});

/** A page's heading and the window's title. Takes the focus after navigation, as a new page would. */
export function Title({ children, title }: { children: ReactNode; title: string }) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    if (shown) {
      if (!back) scrollTo(0, 0);
      back = false;
      heading.current?.focus({ preventScroll: true });
    }
    // Not at once: strict mode runs effects twice, and that is no navigation.
    const timer = setTimeout(() => {
      shown = true;
    });
    return () => {
      clearTimeout(timer);
    };
  }, []);
  return (
    <>
      <title>{`${title} · Orderflow`}</title>
      <h1 ref={heading} tabIndex={-1}>
        {children}
      </h1>
    </>
  );
}
