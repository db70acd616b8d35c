-- +goose Up
-- Whether a plan is about letters of unknown outcome, too. Of older plans that is not
-- known; they go on as they were started.
alter table redrives add column unknown boolean not null default true;
