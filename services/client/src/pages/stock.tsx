import { lazy, Suspense, useState } from 'react';
import type { Product } from '../api/products.ts';
import { useMay } from '../auth/session.ts';
import { NotForYou } from '../auth/sign-in-first.tsx';
import { Empty, Failure, More, Outdated, Skeleton } from '../components/feedback.tsx';
import { Icon } from '../components/icons.tsx';
import { ProductArt } from '../components/product-art.tsx';
import { NoMatch, SearchField } from '../components/search-field.tsx';
import { StockLevel } from '../components/stock-level.tsx';
import { Title } from '../components/title.tsx';
import { count, money, shortId } from '../format.ts';
import { useCatalog } from './use-catalog.ts';
import './stock.css';

const AddDialog = lazy(() => import('../stock/add-dialog.tsx'));
const EditDialog = lazy(() => import('../stock/edit-dialog.tsx'));
const RestockDialog = lazy(() => import('../stock/restock-dialog.tsx'));

type Task = { do: 'add' } | { do: 'edit' | 'restock'; product: Product };

/** The catalog from behind the counter. */
export default function StockPage() {
  if (useMay('stock')) return <Counter />;
  return (
    <>
      <div className="page-head">
        <Title title="Stock">Stock</Title>
      </div>
      <NotForYou icon="stock" what="change the catalog" needs="That is for accounts that keep the stock." />
    </>
  );
}

function Counter() {
  const { shop, search, setSearch, found } = useCatalog();
  const [task, setTask] = useState<Task>();
  const add = (
    <button
      type="button"
      className="button"
      onClick={() => {
        setTask({ do: 'add' });
      }}
    >
      <Icon name="plus" />
      Add a product
    </button>
  );
  return (
    <>
      <div className="page-head">
        <div>
          <Title title="Stock">Stock</Title>
          <p>What is on the shelf, what orders hold, and what it costs.</p>
        </div>
        <div className="shelf-tools">
          <SearchField value={search} label="Search products" onChange={setSearch} />
          {add}
        </div>
      </div>
      <Outdated when={shop.isError && shop.data !== undefined} />
      {shop.isPending && (shop.isPaused ? <Failure error={null} retry={() => void shop.refetch()} /> : <StockSkeleton />)}
      {shop.isError && shop.data === undefined && <Failure error={shop.error} retry={() => void shop.refetch()} />}
      {shop.data?.length === 0 && (
        <Empty icon="stock" title="The shelves are empty" action={add}>
          Add the first product, and it is for sale at once.
        </Empty>
      )}
      {found && found.length > 0 && <Shelf products={found} begin={setTask} />}
      {found?.length === 0 && search !== '' && !shop.hasNextPage && <NoMatch search={search} />}
      {search === '' && <More query={shop} />}
      <Suspense>{task && <TaskDialog task={task} close={() => { setTask(undefined); }} />}</Suspense>
    </>
  );
}

function TaskDialog({ task, close }: { task: Task; close: () => void }) {
  switch (task.do) {
    case 'add':
      return <AddDialog close={close} />;
    case 'edit':
      return <EditDialog product={task.product} close={close} />;
    case 'restock':
      return <RestockDialog product={task.product} close={close} />;
  }
}

function Shelf({ products, begin }: { products: readonly Product[]; begin: (task: Task) => void }) {
  return (
    <div className="panel shelf">
      <table>
        <thead>
          <tr>
            <th scope="col">Product</th>
            <th scope="col" className="figure">Price</th>
            <th scope="col">Stock</th>
            <th scope="col" className="figure">Reserved</th>
            <th scope="col">
              <span className="visually-hidden">Actions</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {products.map((product) => (
            <tr key={product.productId}>
              <th scope="row">
                <span className="shelf-product">
                  <span className="thumb">
                    <ProductArt id={product.productId} name={product.name} />
                  </span>
                  <span>
                    {product.name}
                    <span className="small soft number shelf-id">No. {shortId(product.productId)}</span>
                  </span>
                </span>
              </th>
              <td className="figure number" data-label="Price">{money(product.priceCents, product.currency)}</td>
              <td data-label="Stock">
                <StockLevel stock={product.stock} />
              </td>
              <td className="figure number" data-label="Reserved">{count(product.reserved)}</td>
              <td className="shelf-actions">
                <button type="button" className="button quiet compact" aria-label={`Restock ${product.name}`} onClick={() => { begin({ do: 'restock', product }); }}>
                  Restock
                </button>
                <button type="button" className="button quiet compact" aria-label={`Edit ${product.name}`} onClick={() => { begin({ do: 'edit', product }); }}>
                  Edit
                </button>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function StockSkeleton() {
  return (
    <div role="status" className="row-skeletons">
      <span className="visually-hidden">Loading the stock</span>
      {Array.from({ length: 6 }, (_, i) => (
        <Skeleton key={i} height="4.5rem" />
      ))}
    </div>
  );
}
