-- +goose Up
-- Expired: the order had waited for too long when it came, and holds nothing.
-- Rows that are there need no check: the old one was stricter.
alter table reservations
  drop constraint reservations_status_check,
  add constraint reservations_status_check
    check (status in ('Reserved', 'Refused', 'Expired', 'Released', 'Cancelled')) not valid;

-- What the inbox was for is decided by the orders' own rows. Replicas of the
-- release before still write to it; the next release but one drops the table.
comment on table inbox is 'not used any more';
