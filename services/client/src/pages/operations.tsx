import { Route, Switch } from 'wouter';
import { useMay } from '../auth/session.ts';
import { NotForYou } from '../auth/sign-in-first.tsx';
import { Title } from '../components/title.tsx';
import { GroupsPage } from '../operations/groups.tsx';
import { HistoryPage } from '../operations/history.tsx';
import { LetterPage } from '../operations/letter.tsx';
import { LettersPage } from '../operations/letters.tsx';
import '../operations/operations.css';
import { RedrivePage } from '../operations/redrive.tsx';
import { RedrivesPage } from '../operations/redrives.tsx';
import { NotFoundPage } from './not-found.tsx';

/** Dead letters: what could not be handled, and how it is sent back. */
export default function OperationsPage() {
  if (useMay('operations')) {
    return (
      <Switch>
        <Route path="/operations" component={GroupsPage} />
        <Route path="/operations/letters" component={LettersPage} />
        <Route path="/operations/letters/:letterId">{({ letterId }) => <LetterPage key={letterId} letterId={Number(letterId)} />}</Route>
        <Route path="/operations/redrives" component={RedrivesPage} />
        <Route path="/operations/redrives/:redriveId">{({ redriveId }) => <RedrivePage key={redriveId} redriveId={redriveId} />}</Route>
        <Route path="/operations/history" component={HistoryPage} />
        <Route component={NotFoundPage} />
      </Switch>
    );
  }
  return (
    <>
      <div className="page-head">
        <Title title="Dead letters">Dead letters</Title>
      </div>
      <NotForYou icon="letters" what="look after dead letters" needs="That is for accounts with the scope operations." />
    </>
  );
}
