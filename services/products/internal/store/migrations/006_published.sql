-- +goose Up
-- Reading what was published in its order, page by page, at any size.
create index outbox_events_published on outbox_events (published_at, id) where published_at is not null;
