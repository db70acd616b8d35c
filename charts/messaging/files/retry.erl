%% Ends the pauses of the topology operator while a broker is installed together with its topology: the operator fails as long
%% as the broker starts, and pauses for up to a quarter of an hour after many failures. Any change of a resource ends its
%% pause. Runs in the broker's own image, which every node has already, and ends when everything is declared.
Env = fun(Name) -> {ok, Value} = file:read_file("/var/run/secrets/kubernetes.io/serviceaccount/" ++ Name), Value end,
{ok, _} = application:ensure_all_started([inets, ssl]),
Release = os:getenv("RELEASE"),
Base = "https://kubernetes.default.svc/apis/rabbitmq.com/v1beta1/namespaces/" ++ os:getenv("NAMESPACE") ++ "/",
Call = fun(Method, Path, Body) ->
    Options = [{timeout, 10000}, {ssl, [
        {verify, verify_peer}, {cacertfile, "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"},
        {customize_hostname_check, [{match_fun, public_key:pkix_verify_hostname_match_fun(https)}]}]}],
    %% The token is renewed while this runs.
    Headers = [{"authorization", "Bearer " ++ binary_to_list(Env("token"))}],
    Request = case Body of
        none -> {Base ++ Path, Headers};
        _ -> {Base ++ Path, Headers, "application/merge-patch+json", Body}
    end,
    case httpc:request(Method, Request, Options, [{body_format, binary}]) of
        {ok, {{_, 200, _}, _, Answer}} -> json:decode(Answer);
        {ok, {{_, Status, _}, _, Answer}} -> error({Path, Status, Answer});
        {error, Reason} -> error({Path, Reason})
    end
end,
Is = fun(Type, #{<<"status">> := #{<<"conditions">> := Conditions}}) ->
        lists:any(fun(#{<<"type">> := T, <<"status">> := S}) -> T =:= Type andalso S =:= <<"True">> end, Conditions);
    (_, _) -> false
end,
Again = fun() -> iolist_to_binary(json:encode(#{metadata => #{annotations => #{<<"orderflow/tried-again">> =>
    list_to_binary(calendar:system_time_to_rfc3339(erlang:system_time(second)))}}})) end,
%% How many resources of a kind there are, and how many of them are not declared; those it makes the operator look at again.
Look = fun(Kind) ->
    #{<<"items">> := Items} = Call(get, Kind ++ "?labelSelector=app.kubernetes.io%2Finstance%3D" ++ Release, none),
    Waiting = [Name || #{<<"metadata">> := #{<<"name">> := Name}} = I <- Items, not Is(<<"Ready">>, I)],
    [Call(patch, Kind ++ "/" ++ binary_to_list(Name), Again()) || Name <- Waiting],
    {length(Items), length(Waiting)}
end,
Kinds = string:lexemes(os:getenv("KINDS"), " "),
Round = fun Round(Idle) ->
    timer:sleep(5000),
    Left = try
        case Is(<<"ClusterAvailable">>, Call(get, "rabbitmqclusters/" ++ os:getenv("BROKER"), none)) of
            false -> starting;
            true ->
                Found = [Look(Kind) || Kind <- Kinds],
                {lists:sum([All || {All, _} <- Found]), lists:sum([W || {_, W} <- Found])}
        end
    catch _:Reason -> {failed, Reason}
    end,
    io:format("~s ~0p~n", [calendar:system_time_to_rfc3339(erlang:system_time(second)), Left]),
    case Left of
        {All, 0} when All > 0, Idle > 1 -> halt(0); % twice, for what is still being created
        {All, 0} when All > 0 -> Round(Idle + 1);
        _ -> Round(0)
    end
end,
Round(0).
