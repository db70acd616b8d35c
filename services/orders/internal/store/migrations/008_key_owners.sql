-- +goose Up
-- A key belongs to whoever sent it. Where callers have access tokens that is the
-- token's subject, who may place orders for several customers.
comment on column order_keys.customer_id is
  'whose key it is: a UUID (version 5) of the access token''s issuer and subject, else the customer';
