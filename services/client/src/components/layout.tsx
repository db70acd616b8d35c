import { lazy, Suspense, useState, type ReactNode } from 'react';
import { Link, useRoute } from 'wouter';
import { AccountButton } from '../auth/account-button.tsx';
import { SessionBar } from '../auth/session-bar.tsx';
import { useMay, useSession } from '../auth/session.ts';
import { units } from '../basket/basket.ts';
import { useBasket } from '../basket/store.ts';
import { count, counted, initials } from '../format.ts';
import { useShopperName } from '../shopper.ts';
import { nextTheme, useTheme } from '../theme.ts';
import { useOnline } from './feedback.tsx';
import { Icon, type IconName } from './icons.tsx';
import './layout.css';

const loadShopperDialog = () => import('./shopper-dialog.tsx');
const ShopperDialog = lazy(loadShopperDialog);

export function Layout({ children }: { children: ReactNode }) {
  const session = useSession();
  const mayStock = useMay('stock');
  const mayOperations = useMay('operations');
  return (
    <>
      <a className="skip" href="#main">
        Skip to content
      </a>
      <header className="bar">
        <div className="bar-inner">
          <Link to="/" className="brand">
            <Mark />
            Orderflow
          </Link>
          <nav aria-label="Main" className="nav">
            <NavItem to="/" icon="shop" label="Shop" />
            <NavItem to="/history" icon="orders" label="Orders" />
            {mayStock && <NavItem to="/stock" icon="stock" label="Stock" />}
            {mayOperations && <NavItem to="/operations" icon="letters" label="Operations" />}
            <BasketItem />
          </nav>
          {session.kind === 'open' ? <ShopperButton /> : <AccountButton account={session.kind === 'in' ? session.account : undefined} />}
          <ThemeButton />
        </div>
        <OfflineBar />
        <SessionBar />
      </header>
      <main id="main" tabIndex={-1}>
        {children}
      </main>
      <footer className="foot">
        <span>Orderflow</span>
        <a href="/openapi.yaml">API contract</a>
      </footer>
      <div id="announcements" className="visually-hidden" aria-live="polite" />
    </>
  );
}

function Mark() {
  return (
    <svg className="mark" viewBox="0 0 32 32" aria-hidden="true">
      <rect width="32" height="32" rx="9" fill="var(--ink)" />
      <path d="M8 21c5 0 5-10 10-10h2" fill="none" stroke="var(--paper)" strokeWidth="3" strokeLinecap="round" />
      <circle cx="8" cy="21" r="3.2" fill="var(--paper)" />
      <circle cx="23" cy="11" r="4" fill="light-dark(#6ee7a8, #0f8a52)" />
    </svg>
  );
}

interface NavItemProps {
  to: string;
  icon: IconName;
  label: string;
  spoken?: string; // instead of what is seen
  className?: string;
  children?: ReactNode;
}

function NavItem({ to, icon, label, spoken, className = '', children }: NavItemProps) {
  const [exactly] = useRoute(to);
  const [below] = useRoute(`${to}/*`);
  const here = exactly || (to !== '/' && below);
  return (
    <Link to={to} className={`nav-item ${className}${here ? ' active' : ''}`} aria-current={here ? 'page' : undefined} aria-label={spoken}>
      <Icon name={icon} />
      <span>{label}</span>
      {children}
    </Link>
  );
}

function BasketItem() {
  const n = units(useBasket());
  return (
    <NavItem to="/basket" icon="bag" label="Basket" className="nav-basket" {...(n > 0 && { spoken: `Basket, ${counted(n, 'item')}` })}>
      {n > 0 && <span className="nav-count number">{n > 999 ? '999+' : count(n)}</span>}
    </NavItem>
  );
}

function ShopperButton() {
  const [open, setOpen] = useState(false);
  const name = useShopperName();
  return (
    <>
      <button
        type="button"
        className="shopper"
        aria-haspopup="dialog"
        title={`Ordering as ${name ?? 'guest'}`}
        onPointerEnter={() => void loadShopperDialog()}
        onClick={() => {
          setOpen(true);
        }}
      >
        <span className="avatar" aria-hidden="true">
          {name === undefined ? <Icon name="person" /> : initials(name)}
        </span>
        <span className="shopper-name">
          <span className="visually-hidden">Ordering as </span>
          {name ?? 'Guest'}
        </span>
      </button>
      {open && (
        <Suspense>
          <ShopperDialog
            close={() => {
              setOpen(false);
            }}
          />
        </Suspense>
      )}
    </>
  );
}

const themeIcons = { system: 'half', light: 'sun', dark: 'moon' } as const;

function ThemeButton() {
  const [theme, setTheme] = useTheme();
  return (
    <button
      type="button"
      className="round-button theme"
      aria-label={`Theme: ${theme}. Change to ${nextTheme(theme)}`}
      title={`Theme: ${theme}`}
      onClick={() => {
        setTheme(nextTheme(theme));
      }}
    >
      <Icon name={themeIcons[theme]} />
    </button>
  );
}

function OfflineBar() {
  const online = useOnline();
  return (
    <div role="status">
      {!online && (
        <p className="offline-bar">
          <Icon name="offline" />
          You are offline. What you see is the last that was known.
        </p>
      )}
    </div>
  );
}
