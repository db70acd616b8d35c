import { memo, useRef } from 'react';
import { announce } from '../announce.ts';
import type { Product } from '../api/products.ts';
import { maxQuantity, quantityOf } from '../basket/basket.ts';
import { changeBasket, useBasket } from '../basket/store.ts';
import { Empty, Failure, More, Outdated, Skeleton, useOnline } from '../components/feedback.tsx';
import { Icon } from '../components/icons.tsx';
import { ProductArt } from '../components/product-art.tsx';
import { NoMatch, SearchField } from '../components/search-field.tsx';
import { StockLevel } from '../components/stock-level.tsx';
import { Title } from '../components/title.tsx';
import { count, money } from '../format.ts';
import { useCatalog } from './use-catalog.ts';
import './catalog.css';

/** Everything that is sold, with its stock as it is now. */
export function CatalogPage() {
  const { shop, search, setSearch, found } = useCatalog();
  const online = useOnline();
  const live = online && shop.isSuccess;
  return (
    <>
      <div className="page-head">
        <div>
          <Title title="Shop">Shop</Title>
          <p className="live-line">
            <span className={live ? 'live-dot' : shop.isLoading ? 'live-dot idle' : 'live-dot off'} />
            {live ? 'Stock is live' : shop.isLoading ? 'Reading the stock…' : 'Stock is not live right now'}
          </p>
        </div>
        <SearchField value={search} label="Search products" onChange={setSearch} />
      </div>
      <Outdated when={shop.isError && shop.data !== undefined} />
      {shop.isPending && (shop.isPaused ? <Failure error={null} retry={() => void shop.refetch()} /> : <CardSkeletons />)}
      {shop.isError && shop.data === undefined && <Failure error={shop.error} retry={() => void shop.refetch()} />}
      {found && found.length > 0 && <Grid products={found} />}
      {found?.length === 0 && !shop.hasNextPage && <NothingFound search={search} />}
      {search === '' && <More query={shop} />}
    </>
  );
}

function Grid({ products }: { products: readonly Product[] }) {
  const basket = useBasket();
  return (
    <ul className="grid">
      {products.map((product) => (
        <Card key={product.productId} product={product} inBasket={quantityOf(basket, product.productId)} />
      ))}
    </ul>
  );
}

const Card = memo(function Card({ product, inBasket }: { product: Product; inBasket: number }) {
  const { productId, name, priceCents, currency, stock } = product;
  const more = useRef<HTMLButtonElement>(null);
  const change = (quantity: number) => {
    changeBasket({ do: 'set', productId, quantity });
    announce(quantity === 0 ? `${name} taken out of the basket` : `${count(quantity)} in the basket: ${name}`);
    if (quantity === 0) more.current?.focus(); // the button that was pressed goes away
  };
  return (
    <li className={stock === 0 ? 'card sold-out' : 'card'}>
      <div className="card-art">
        <ProductArt id={productId} name={name} />
      </div>
      <div className="card-text">
        <h2>{name}</h2>
        <StockLevel stock={stock} />
      </div>
      <div className="card-foot">
        <span className="price number">{money(priceCents, currency)}</span>
        <div className={inBasket > 0 ? 'picker chosen' : 'picker'} role="group" aria-label={`${name} in the basket`}>
          {inBasket > 0 && (
            <>
              <button
                type="button"
                aria-label={`One less: ${name}`}
                onClick={() => {
                  change(inBasket - 1);
                }}
              >
                <Icon name="minus" />
              </button>
              <span className="number">{count(inBasket)}</span>
            </>
          )}
          <button
            type="button"
            ref={more}
            disabled={(stock === 0 && inBasket === 0) || inBasket >= maxQuantity}
            aria-label={inBasket > 0 ? `One more: ${name}` : `Add to basket: ${name}`}
            onClick={() => {
              change(inBasket + 1);
            }}
          >
            <Icon name="plus" />
          </button>
        </div>
      </div>
    </li>
  );
});

function NothingFound({ search }: { search: string }) {
  if (search !== '') return <NoMatch search={search} />;
  return (
    <Empty icon="shop" title="Nothing is for sale yet">
      Products that are added under Stock show up here at once.
    </Empty>
  );
}

function CardSkeletons() {
  return (
    <div role="status">
      <span className="visually-hidden">Loading the catalog</span>
      <div className="grid">
        {Array.from({ length: 8 }, (_, i) => (
          <div key={i} className="card">
            <Skeleton height="auto" />
            <div className="card-text">
              <Skeleton height="1.25rem" width="80%" />
              <Skeleton height="1rem" width="45%" />
            </div>
            <div className="card-foot">
              <Skeleton height="1.25rem" width="35%" />
              <Skeleton height="2.75rem" width="2.75rem" />
            </div>
          </div>
        ))}
      </div>
    </div>
  );
}

