-- +goose Up
drop index letters_by_group; -- letters_by_group_and_death serves the same queries
