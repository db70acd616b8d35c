import { onlineManager } from '@tanstack/react-query';
import { useSyncExternalStore, type ReactNode } from 'react';
import { explain } from '../api/problem.ts';
import { Icon, type IconName } from './icons.tsx';

/** Whether the browser has a network. */
export function useOnline(): boolean {
  return useSyncExternalStore((changed) => onlineManager.subscribe(changed), () => onlineManager.isOnline());
}

/** What stands in the place of a page that is on its way. */
export function PageLoading() {
  return (
    <div role="status" className="page-loading">
      <span className="visually-hidden">Loading</span>
      <Skeleton height="2.25rem" width="14rem" />
      <Skeleton height="18rem" />
    </div>
  );
}

export function Skeleton({ height, width = '100%' }: { height: string; width?: string }) {
  return <div className="skeleton" style={{ blockSize: height, inlineSize: width }} />;
}

/** Nothing is there, and what can be done about it. */
export function Empty({ icon, title, children, action }: { icon: IconName; title: string; children?: ReactNode; action?: ReactNode }) {
  return (
    <div className="empty">
      <Icon name={icon} />
      <h2>{title}</h2>
      {children !== undefined && <p>{children}</p>}
      {action}
    </div>
  );
}

/** A page or a part of one that could not be read. */
export function Failure({ error, retry, retryLabel = 'Try again' }: { error: unknown; retry: () => void; retryLabel?: string }) {
  const online = useOnline();
  const { title, text } = online
    ? explain(error)
    : { title: 'You are offline', text: 'This has not been loaded yet. It comes as soon as you are connected.' };
  return (
    <div role="alert">
      <Empty
        icon={online ? 'warning' : 'offline'}
        title={title}
        action={
          <button type="button" className="button quiet" onClick={retry}>
            {retryLabel}
          </button>
        }
      >
        {text}
      </Empty>
    </div>
  );
}

/** A sentence that is part of a page. */
export function Notice({ kind, icon = 'warning', children }: { kind: 'wait' | 'bad' | 'good'; icon?: IconName; children: ReactNode }) {
  return (
    <div className={`notice ${kind}`}>
      <Icon name={icon} />
      <div>{children}</div>
    </div>
  );
}

/** Says of data on the page that it could not be refreshed. */
export function Outdated({ when }: { when: boolean }) {
  const online = useOnline();
  if (!when || !online) return null; // the layout says when there is no network
  return (
    <div role="status" className="outdated">
      <Notice kind="wait" icon="clock">
        This may be out of date: the shop does not answer. Trying again…
      </Notice>
    </div>
  );
}

/** The button at the end of a list that has more. */
export function More({ query }: { query: { hasNextPage: boolean; isFetchingNextPage: boolean; fetchNextPage: () => unknown } }) {
  if (!query.hasNextPage) return null;
  return (
    <div className="more">
      <button type="button" className="button quiet" disabled={query.isFetchingNextPage} onClick={() => void query.fetchNextPage()}>
        {query.isFetchingNextPage ? 'Loading…' : 'Show more'}
      </button>
    </div>
  );
}
