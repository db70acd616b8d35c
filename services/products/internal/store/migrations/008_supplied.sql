-- +goose Up
-- Everything that ever came in: stock + reserved = supplied, whatever orders do.
-- Only creating and restocking a product write it, so that a stock or a
-- reserved that somebody has changed by hand shows.
alter table products add column supplied bigint;

-- For as long as a replica of the release before may run, which does not know
-- the column. Of what it does, only creating and restocking change the version
-- and bring something in. The next release but one drops the triggers.
create function keep_supplied() returns trigger language plpgsql as $$
begin
  if tg_op = 'INSERT' then
    new.supplied := new.stock + new.reserved;
  else
    new.supplied := old.supplied + (new.stock + new.reserved) - (old.stock + old.reserved);
  end if;
  return new;
end $$;

create trigger keep_supplied_inserted before insert on products
for each row when (new.supplied is null)
execute function keep_supplied();

create trigger keep_supplied_updated before update of version on products
for each row when (new.supplied is not distinct from old.supplied and new.version > old.version)
execute function keep_supplied();
