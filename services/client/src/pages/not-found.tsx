import { Link } from 'wouter';
import { Empty } from '../components/feedback.tsx';
import { Title } from '../components/title.tsx';

export function NotFoundPage() {
  return (
    <>
      <div className="visually-hidden">
        <Title title="Not found">Not found</Title>
      </div>
      <Empty
        icon="search"
        title="There is nothing at this address"
        action={
          <Link to="/" className="button">
            To the shop
          </Link>
        }
      >
        The link may be old, or something in it got lost.
      </Empty>
    </>
  );
}
