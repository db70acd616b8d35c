import { Component, type ReactNode } from 'react';
import { useLocation } from 'wouter';
import { Failure } from './feedback.tsx';

/** Shows that a page broke instead of an empty window; going elsewhere mends it. */
export function ErrorBoundary({ children }: { children: ReactNode }) {
  return <Boundary key={useLocation()[0]}>{children}</Boundary>;
}

class Boundary extends Component<{ children: ReactNode }, { error: unknown }> {
  override state: { error: unknown } = { error: undefined };

  static getDerivedStateFromError(error: unknown) {
    return { error };
  }

  override render() {
    if (this.state.error === undefined) return this.props.children;
    return (
      <Failure
        error={this.state.error}
        retry={() => {
          location.reload();
        }}
        retryLabel="Load again"
      />
    );
  }
}
