import { lazy, Suspense } from 'react';
import { Route, Switch } from 'wouter';
import { ErrorBoundary } from './components/error-boundary.tsx';
import { PageLoading } from './components/feedback.tsx';
import { Layout } from './components/layout.tsx';
import { CatalogPage } from './pages/catalog.tsx';
import { NotFoundPage } from './pages/not-found.tsx';

const BasketPage = lazy(() => import('./pages/basket.tsx'));
const OrderPage = lazy(() => import('./pages/order.tsx'));
const HistoryPage = lazy(() => import('./pages/history.tsx'));
const StockPage = lazy(() => import('./pages/stock.tsx'));
const OperationsPage = lazy(() => import('./pages/operations.tsx'));

/** The pages by address. The server knows the same ones (views in main.go). */
export function App() {
  return (
    <Layout>
      <ErrorBoundary>
        <Suspense fallback={<PageLoading />}>
          <Switch>
            <Route path="/" component={CatalogPage} />
            <Route path="/basket" component={BasketPage} />
            <Route path="/order/:orderId">{({ orderId }) => <OrderPage key={orderId} orderId={orderId} />}</Route>
            <Route path="/history">{() => <HistoryPage />}</Route>
            <Route path="/history/:customerId">{({ customerId }) => <HistoryPage customerId={customerId} />}</Route>
            <Route path="/stock" component={StockPage} />
            <Route path="/operations/*?">{() => <OperationsPage />}</Route>
            <Route component={NotFoundPage} />
          </Switch>
        </Suspense>
      </ErrorBoundary>
    </Layout>
  );
}
