-- +goose Up
-- Nobody searches these by value, and an ANALYZE would unpack thousands of
-- bodies and headers each time that many letters come in.
alter table letters
  alter column fingerprint set statistics 0,
  alter column message_id set statistics 0,
  alter column type set statistics 0,
  alter column trace_id set statistics 0,
  alter column headers set statistics 0,
  alter column properties set statistics 0,
  alter column body set statistics 0,
  alter column error set statistics 0;
